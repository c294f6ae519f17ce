import { type Command, Option } from 'commander';
import {
  addSizeAndOwnerFlags,
  copyOptions,
  type OwnerFlags,
  parseCount,
  sizeAndOwnerOptions,
} from '../clone-flags.js';
import { count as counted } from '../output.js';
import { printable } from '../printable.js';
import { inSession } from '../session.js';

interface PrewarmFlags extends OwnerFlags {
  readonly count?: number;
  readonly pack?: boolean;
  readonly snapshot?: boolean;
}

export function addPrewarm(program: Command): void {
  addSizeAndOwnerFlags(program.command('prewarm'))
    .description('Hash and seal a template, and make ready slots of it.')
    .argument('<stack>', "the template's name, or with --snapshot the snapshot's")
    .option(
      '--count <number>',
      'the number of ready slots; without it, the template is only hashed and sealed',
      parseCount,
    )
    .option('--pack', 'rewrite the sealed image in few extents; worth it for thousands of clones')
    .addOption(
      new Option('--snapshot', 'verify a snapshot, and make ready slots of it').conflicts(['size', 'pack']),
    )
    .addHelpText(
      'after',
      `
Ready slots stay in the pool when the command ends. A scheduler that calls the library's prewarm()
with the same size, owner and mode uses them. The command "clone" does not: to look for one would
take it longer than a clone.

JSON: { "stack", "count" }, or "snapshot" instead of "stack"; the count is 0 if none was asked for

Examples:
  microvm-rootfs prewarm debian-12 --count 20
  microvm-rootfs prewarm debian-12 --count 20 --size 8G
  microvm-rootfs prewarm debian-12 --pack
  microvm-rootfs prewarm before-upgrade --snapshot --count 20`,
    )
    .action((name: string, flags: PrewarmFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const { count = 0, pack = false, snapshot = false } = flags;
        const options = { ...(flags.count === undefined ? {} : { count }), signal };
        await session.during(`making ready slots of ${name}`, () =>
          snapshot
            ? registry.prewarmSnapshot(name, { ...copyOptions(flags), ...options })
            : registry.prewarm(name, { ...sizeAndOwnerOptions(flags), pack, ...options }),
        );
        const what = snapshot ? { snapshot: name } : { stack: name };
        output.print({ ...what, count }, () => `${printable(name)}: ${counted(count, 'ready slot')}.`);
      }),
    );
}
