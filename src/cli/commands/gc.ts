import { readdir } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import { type GcReport, RootfsError, type SlotInfo } from '../../index.js';
import { type ListedId, namedIn, readIdList } from '../id-list.js';
import { isBlank } from '../id-spellings.js';
import { listed } from '../listed.js';
import { count, table } from '../output.js';
import { inSession, reported, type Session } from '../session.js';
import { nameOfInput } from '../text-input.js';

interface GcFlags {
  readonly keep?: string[];
  readonly keepFile?: string[];
  readonly keepNone?: boolean;
  readonly allowNoMatch?: boolean;
  readonly yes?: boolean;
}

export function addGc(program: Command): void {
  program
    .command('gc')
    .description('Release every clone whose VM is not on the list. Without --yes, only show which.')
    .option('--keep <vm...>', 'VMs that keep their clones')
    .option('--keep-file <file...>', 'lists of them, one id a line; - is standard input')
    .addOption(new Option('--keep-none', 'release all').conflicts(['keep', 'keepFile']))
    .option('--allow-no-match', 'go on if no VM on the list has a clone')
    .option('--yes', 'really release them')
    .addHelpText(
      'after',
      `
Clones that some process has open stay. Do not start VMs that are not on the list while it runs.

A list is UTF-8 or UTF-16 text. Space around an id does not count. A line that is not an id but holds
one ("vm-1", vm-1 # comment) is an error, and then nothing is released.

JSON: { "dryRun", "released": [id], "inUse": [id], "unknown": [id] }

Examples:
  microvm-rootfs gc --keep vm-1 vm-2
  list-my-vms | microvm-rootfs gc --keep-file - --yes`,
    )
    .action((flags: GcFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const dryRun = flags.yes !== true;
        const { keep, failure } = await idsToKeep(session, flags);
        const { report, throwIfFailed } = await reported(
          session.during('looking at clones', () => registry.gc({ keep, dryRun, signal })),
        );
        output.print({ dryRun, ...report }, () => text(report, dryRun));
        session.tellIfMissing(registry.config.clonesDir);
        throwIfFailed();
        if (failure !== undefined) throw failure;
      }),
    );
}

interface Kept {
  readonly keep: readonly string[];
  /** Why some clones could not be read. They are kept. */
  readonly failure?: unknown;
}

/** Throws `INVALID_ARGUMENT` unless it is clear which VMs keep their clones. */
async function idsToKeep(session: Session, flags: GcFlags): Promise<Kept> {
  const { keep, keepFile, keepNone } = flags;
  if (keepNone) return { keep: [] };
  // An empty list by mistake would cost every VM its disk.
  if (keep === undefined && keepFile === undefined) {
    throw new RootfsError(
      'INVALID_ARGUMENT',
      'say which VMs keep their clones: --keep, --keep-file or --keep-none',
    );
  }
  if (keep?.some(isBlank)) {
    throw new RootfsError(
      'INVALID_ARGUMENT',
      'an id of --keep is blank, so nothing is released: see what the variable that it comes from holds',
    );
  }
  const lists: List[] = [];
  if (keep !== undefined)
    lists.push({ name: '--keep', ids: keep.map((id) => ({ id, where: 'an id of --keep' })) });
  // Standard input can be read only once.
  for (const file of new Set(keepFile))
    lists.push({ name: nameOfInput(file), ids: await readIdList(file, session.signal) });
  return matched(session, lists, flags.allowNoMatch === true);
}

interface List {
  readonly name: string;
  readonly ids: readonly ListedId[];
}

/** A list that is empty, or is of other VMs than this host's, is one that went wrong. */
async function matched(
  { registry, signal }: Session,
  lists: readonly List[],
  allowNoMatch: boolean,
): Promise<Kept> {
  const { clonesDir } = registry.config;
  const { found, failure } = await listed(registry.slots({ signal }));
  if (signal.aborted) throw failure ?? signal.reason;
  const existing = found.map(({ rawId }) => rawId);
  const all = lists.flatMap(({ ids }) => ids);
  const named = await namedIn(all, existing);
  for (const { name, ids } of lists) {
    if (ids.length === 0) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `${name} holds no id, so nothing is released. To release every clone, use --keep-none`,
      );
    }
    if (allowNoMatch || existing.length === 0 || (await namedIn(ids, named)).size > 0) continue;
    const unread = failure === undefined ? '' : `; some could not be read (${(failure as Error).message})`;
    throw new RootfsError(
      'INVALID_ARGUMENT',
      `no VM of ${name} has a clone in ${clonesDir}${unread}, so nothing is released. ` +
        'Check the list and the folder; if both are right, add --allow-no-match',
      { cause: failure },
    );
  }
  // A VM on the list may get its clone while this runs.
  const keep = [...named, ...all.map(({ id }) => id)];
  if (failure === undefined) return { keep };
  const unread = await namesBeside(found, clonesDir).catch(() => {
    throw failure;
  });
  return { keep: [...keep, ...unread], failure };
}

/**
 * The names that no slot was read of. The list may have their VMs in another spelling, which could not be compared, and
 * the collection may be able to read them.
 */
async function namesBeside(slots: readonly SlotInfo[], clonesDir: string): Promise<string[]> {
  const read = new Set(slots.map(({ vmId }) => vmId));
  return (await readdir(clonesDir)).filter((name) => !read.has(name));
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
