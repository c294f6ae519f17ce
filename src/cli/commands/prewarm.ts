import type { Command } from 'commander';
import { addSizeAndOwnerFlags, type OwnerFlags, parseCount, sizeAndOwnerOptions } from '../clone-flags.js';
import { count as counted } from '../output.js';
import { printable } from '../printable.js';
import { inSession } from '../session.js';

interface PrewarmFlags extends OwnerFlags {
  readonly count?: number;
  readonly pack?: boolean;
}

export function addPrewarm(program: Command): void {
  addSizeAndOwnerFlags(program.command('prewarm'))
    .description('Read and seal a template, and make ready slots of it for schedulers that keep some.')
    .argument('<stack>', "the template's name")
    .option('--count <number>', 'how many; without it, the template is only read and sealed', parseCount)
    .option('--pack', 'rewrite the sealed image in few extents; worth it for thousands of clones')
    .addHelpText(
      'after',
      `
They stay when the command ends. A process that keeps a pool of the same kind itself, by the
library's prewarm(), takes them; the command "clone", which lives for one clone, does not look.

JSON: { "stack", "count" }; the count is 0 if none was asked for

Examples:
  microvm-rootfs prewarm debian-12 --count 20
  microvm-rootfs prewarm debian-12 --count 20 --size 8G
  microvm-rootfs prewarm debian-12 --pack`,
    )
    .action((stack: string, flags: PrewarmFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const { count, pack = false } = flags;
        const options = { ...sizeAndOwnerOptions(flags), pack, signal };
        await session.during(`making ready slots of ${stack}`, () =>
          registry.prewarm(stack, count === undefined ? options : { ...options, count }),
        );
        output.print(
          { stack, count: count ?? 0 },
          () => `${printable(stack)}: ${counted(count ?? 0, 'ready slot')}.`,
        );
      }),
    );
}
