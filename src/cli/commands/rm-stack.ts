import type { Command } from 'commander';
import { printable } from '../printable.js';
import { inSession } from '../session.js';

export function addRmStack(program: Command): void {
  program
    .command('rm-stack')
    .description('Remove a template. Clones of it stay as they are.')
    .argument('<stack>', "the template's name")
    .option('--force', 'remove it even if it has clones')
    .addHelpText(
      'after',
      '\nJSON: { "stack", "removed": true if there was one }\n\nExample:\n  microvm-rootfs rm-stack debian-11',
    )
    .action((stack: string, { force = false }: { force?: boolean }, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const removed = await session.during(`removing ${stack}`, () =>
          registry.removeStack(stack, { force, signal }),
        );
        output.print({ stack, removed }, () =>
          removed ? `Removed ${printable(stack)}.` : `There is no stack ${printable(stack)}.`,
        );
      }),
    );
}
