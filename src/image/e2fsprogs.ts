// Runs resize2fs and e2fsck on an image.
import type { HeldFile } from '../programs/held-file.js';
import { programFailed } from '../programs/program-failed.js';
import { type Exit, type RunOptions, requireInstalled, runInstalled } from '../programs/run-program.js';
import { RootfsError } from '../system/errors.js';
import { NEEDS_PROC } from './held-image.js';

/** What both programs say of a file system that is newer than they are. */
const UNSUPPORTED = /unsupported (?:read-only )?feature|newer version of e2fsck/;
const NEEDS_NEWER =
  '; install a newer e2fsprogs, or name its programs (e2fsckBin, resize2fsBin), or make the image without that ' +
  'feature (mke2fs -O ^NAME)';

/** What resize2fs says, and what to do about it. */
const RESIZE_ADVICE: readonly (readonly [words: RegExp, advice: string])[] = [
  [/missing mtab/, `; ${NEEDS_PROC}`],
  [UNSUPPORTED, NEEDS_NEWER],
  [/too large to be expressed in 32 bits/, '; make the image with mke2fs -O 64bit'],
  [/too many block group descriptors/, '; make the image with larger blocks (mke2fs -b 4096)'],
];

interface Resize {
  readonly path: string;
  /** What the image is called in messages. */
  readonly name: string;
  readonly file: HeldFile | undefined;
  /** The clock of resize2fs, so that the same image grown again has the same bytes. */
  readonly timeS: number;
  /** As resize2fs takes it. Default: the length of the file. */
  readonly size: string | undefined;
}

/** Rejects with `RESIZE2FS_NOT_FOUND` or `RESIZE_FAILED`. */
export async function resize2fs(
  program: string,
  { path, name, file, timeS, size }: Resize,
  signal: AbortSignal | undefined,
): Promise<void> {
  const args = ['-f', '--', path, ...(size === undefined ? [] : [size])];
  const given = { env: { E2FSPROGS_FAKE_TIME: `${timeS}` }, file };
  const exit = await runFromE2fsprogs('RESIZE2FS_NOT_FOUND', program, args, signal, given);
  const [, advice = ''] = RESIZE_ADVICE.find(([words]) => words.test(exit.stderr)) ?? [];
  const said = { stdout: exit.stdout.replaceAll(path, name), stderr: exit.stderr.replaceAll(path, name) };
  if (exit.status !== 0) throw programFailed('RESIZE_FAILED', program, name, { ...exit, ...said }, advice);
}

interface CheckOptions {
  /** What the image is called in messages. Default: its path. */
  readonly name?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly file?: HeldFile | undefined;
  /** What to do about damage; it ends the message. */
  readonly advice?: string;
}

/** Rejects with `E2FSCK_NOT_FOUND`. */
export function requireE2fsck(program: string): Promise<void> {
  return requireInstalled({ name: program, package: 'e2fsprogs', notFound: 'E2FSCK_NOT_FOUND' });
}

/** Replays the journal and makes safe repairs, in the caller's own copy of an image. */
export async function checkFilesystem(
  path: string,
  program: string,
  signal: AbortSignal | undefined,
  { name = path, advice, ...given }: CheckOptions = {},
): Promise<void> {
  const exit = await runFromE2fsprogs('E2FSCK_NOT_FOUND', program, ['-fp', '--', path], signal, given);
  // A bit mask: 1 means "errors corrected", 2 "reboot if mounted", every other bit a failure. Null: killed by a signal.
  if (exit.status === null || (exit.status & ~3) !== 0) throw checkFailed(program, path, exit, name, advice);
}

interface CleanCheckOptions extends Pick<CheckOptions, 'name' | 'advice'> {
  /** The length of a file system that no stranger made. */
  readonly sizeBytes?: number;
}

/** Checks without changing anything, before many clones are made from an image. */
export async function checkFilesystemClean(
  path: string,
  program: string,
  signal: AbortSignal | undefined,
  { name = path, advice, sizeBytes = Number.POSITIVE_INFINITY }: CleanCheckOptions = {},
): Promise<void> {
  const given = sizeBytes <= ARRAYS_BYTES_LIMIT ? WITH_ARRAYS : {};
  const exit = await runFromE2fsprogs('E2FSCK_NOT_FOUND', program, ['-fn', '--', path], signal, given);
  if (exit.status !== 0) throw checkFailed(program, path, exit, name, advice);
}

/**
 * e2fsck keeps its bitmaps in trees, unless told to keep them in arrays (EXT2FS_BMAP64_BITARRAY of libext2fs). Those
 * take a bit for each block and inode, and a quarter less time: 12 ms rather than 16 for 8 GiB.
 */
const WITH_ARRAYS: ProgramOptions = {
  env: { E2FSCK_CONFIG: '/dev/stdin' },
  feed: async (stdin) => void stdin.end('[bitmaps]\ninode_used_map = 1\nfs_bitmaps = 1\n'),
};

// 5 MB of arrays.
const ARRAYS_BYTES_LIMIT = 64 * 2 ** 30;

/** e2fsck found damage. If it was killed, or could not run to its end, nothing is known about the image. */
export class DamageFound extends RootfsError {}

// Bits of e2fsck's exit status: errors are left, or it could not work, as with a superblock that it does not know.
const DAMAGE_BITS = 4 | 8;

// Enough to see what is wrong.
const FINDINGS_SHOWN = 8;

/** The error holds e2fsck's findings, which it writes to stdout; stderr holds only its version. */
function checkFailed(program: string, path: string, exit: Exit, name: string, advice = ''): RootfsError {
  const text = `${exit.stdout}\n${exit.stderr}`.replaceAll(path, name);
  const lines = text.split('\n').map((line) => line.trim());
  const findings = lines.filter(
    (line) => line !== '' && !/^(Pass \d|e2fsck \d|.*: \d+\/\d+ files )/.test(line),
  );
  const shown = findings.slice(0, FINDINGS_SHOWN).join('; ');
  const more = findings.length > FINDINGS_SHOWN ? `; and ${findings.length - FINDINGS_SHOWN} lines more` : '';
  const output = { stdout: '', stderr: `${shown}${more}` };
  const isNewer = UNSUPPORTED.test(text);
  const isDamage = !isNewer && exit.status !== null && (exit.status & DAMAGE_BITS) !== 0;
  const remedy = isNewer ? NEEDS_NEWER : isDamage ? advice : '';
  const error = programFailed('E2FSCK_FAILED', program, name, { ...exit, ...output }, remedy);
  return isDamage ? new DamageFound(error.code, error.message, { path: name }) : error;
}

type ProgramOptions = Pick<RunOptions, 'env' | 'feed' | 'file'>;

/** A guest can make an image that e2fsck and resize2fs work, or sleep, for hours on. */
const TURN_MS = 60_000;

function runFromE2fsprogs(
  notFound: 'RESIZE2FS_NOT_FOUND' | 'E2FSCK_NOT_FOUND',
  program: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
  { env, ...given }: ProgramOptions = {},
): Promise<Exit> {
  // The host's own e2fsck.conf could change what is found and mended, and with it the digest.
  const ours = { E2FSCK_CONFIG: '/dev/null', ...env };
  const options = { ...given, env: ours, turnMs: TURN_MS };
  return runInstalled({ name: program, package: 'e2fsprogs', notFound }, args, signal, options);
}
