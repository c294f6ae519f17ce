import { readFile } from 'node:fs/promises';
import { text as textOf } from 'node:stream/consumers';
import type { Command } from 'commander';
import { type GcReport, RootfsError } from '../../index.js';
import { count, table } from '../output.js';
import { inSession } from '../session.js';

interface GcFlags {
  readonly keep?: string[];
  readonly keepFile?: string;
  readonly keepNone?: boolean;
  readonly yes?: boolean;
}

export function addGc(program: Command): void {
  program
    .command('gc')
    .description(
      'Release every clone whose VM is not to be kept. Only tells what it would do, without --yes.',
    )
    .option('--keep <vm...>', 'VMs that keep their clones')
    .option('--keep-file <file>', 'more of them, an id a line; - is stdin')
    .option('--keep-none', 'release all')
    .option('--yes', 'really release them')
    .addHelpText(
      'after',
      `
Clones that some process has open stay. Run it while no VM is started that is not on the list.

JSON: { "dryRun", "released": [id], "inUse": [id], "unknown": [id] }

Examples:
  microvm-rootfs gc --keep vm-1 vm-2
  list-my-vms | microvm-rootfs gc --keep-file - --yes`,
    )
    .action((flags: GcFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const dryRun = flags.yes !== true;
        const keep = await idsToKeep(flags);
        const report = await session.during('looking at clones', () => registry.gc({ keep, dryRun, signal }));
        output.print({ dryRun, ...report }, () => text(report, dryRun));
      }),
    );
}

async function idsToKeep({ keep, keepFile, keepNone }: GcFlags): Promise<string[]> {
  if (keepNone && (keep !== undefined || keepFile !== undefined))
    throw new RootfsError('INVALID_ARGUMENT', '--keep-none goes with neither --keep nor --keep-file');
  // An empty list that nobody meant would cost every VM its disk.
  if (!keepNone && keep === undefined && keepFile === undefined) {
    throw new RootfsError(
      'INVALID_ARGUMENT',
      'say which VMs keep their clones: --keep, --keep-file or --keep-none',
    );
  }
  if (keepFile === undefined) return keep ?? [];
  const lines = (keepFile === '-' ? await textOf(process.stdin) : await readFile(keepFile, 'utf8')).split(
    '\n',
  );
  const ids = lines.map((line) => line.replace(/\r$/, '')).filter((line) => line !== '');
  if (ids.length === 0 && keep === undefined)
    throw new RootfsError('INVALID_ARGUMENT', `${keepFile} holds no id: to release all, say --keep-none`);
  return [...(keep ?? []), ...ids];
}

function text({ released, inUse, unknown }: GcReport, dryRun: boolean): string {
  const rows = [
    ...released.map((id) => ({ id, what: dryRun ? 'would be released' : 'released' })),
    ...inUse.map((id) => ({ id, what: 'left: in use' })),
    ...unknown.map((id) => ({ id, what: 'left: cannot tell whether it is in use' })),
  ];
  const list = table(
    rows,
    [
      { title: 'VM', of: ({ id }) => id },
      { title: 'RESULT', of: ({ what }) => what },
    ],
    'Nothing to release.',
  );
  const hint = `\nNothing was done: add --yes to release ${count(released.length, 'clone')}.`;
  return dryRun && released.length > 0 ? list + hint : list;
}
