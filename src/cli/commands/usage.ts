import type { Command } from 'commander';
import { facts } from '../facts.js';
import { planned } from '../planned.js';
import { inSession } from '../session.js';

export function addUsage(program: Command): void {
  program
    .command('usage')
    .description('Tell how much space clones, sealed images and ready slots take.')
    .addHelpText('after', "\nJSON: the library's usage\n\nExample:\n  microvm-rootfs usage")
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const usage = await session.during('measuring', () => planned(registry).usage({ signal }));
        output.print(usage, () => facts(usage));
      }),
    );
}
