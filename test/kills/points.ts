// The system calls of an operation that concern its folders, as a dry run showed them, and what each of them can
// honestly fail with.

/** A thread of the process, or a program that it runs. */
export type Caller = 'pool' | 'process' | 'resize2fs' | 'e2fsck';

export interface Point {
  readonly caller: Caller;
  readonly name: string;
  /** It is the `when`-th call of this name that the thread makes. */
  readonly when: number;
  readonly line: string;
  /** Part of removing something: what cannot be removed now is removed later. */
  readonly removes: boolean;
  /**
   * What is made had its name already: it stays, and what fails now is that it was flushed, or that something is put
   * away.
   */
  readonly published: boolean;
}

const REMOVES = /^(rmdir|unlink|unlinkat)$/;

/** Every call on something below `folder`; what Node does for itself counts, but is no point. */
export function pointsOf(caller: Caller, lines: readonly string[], folder: string): Point[] {
  const counts = new Map<string, number>();
  const points: Point[] = [];
  let folders = 0;
  let published = false;
  for (const line of lines) {
    const name = /^(\w+)\(/.exec(line)?.[1];
    if (name === undefined) continue;
    const when = (counts.get(name) ?? 0) + 1;
    counts.set(name, when);
    if (!line.includes(folder)) continue;
    // To remove a folder is to try it as a file first, then what is in it, then itself.
    if (name === 'unlinkat' && line.includes('EISDIR')) folders++;
    points.push({ caller, name, when, line, removes: folders > 0 || REMOVES.test(name), published });
    published ||= publishes(line);
    if (line.includes('AT_REMOVEDIR')) folders--;
  }
  return points;
}

/** Gives something of ours a name outside our own folders, or a snapshot its own. */
function publishes(line: string): boolean {
  const [, call = '', args = ''] = /^(rename|renameat|renameat2|link|linkat)\((.*)\)\s+= 0/.exec(line) ?? [];
  if (call === '') return false;
  const to = args.split(', ').slice(call.endsWith('at') || call.endsWith('2') ? 2 : 1);
  return !/\.microvm-rootfs\/(staging|trash|spare|sealed|pool|chunks)/.test(to.join('/'));
}

const SPACE = ['ENOSPC', 'EDQUOT'] as const;

/**
 * What the manual pages let each call fail with, of EIO, ENOSPC, EDQUOT, EMFILE, ENOMEM, EINTR. A call that is not here
 * has no honest failure: close() closes the file whatever it returns, lseek() does not touch the disk.
 */
const FAILURES: Readonly<Record<string, readonly string[]>> = {
  chmod: ['EIO', 'ENOMEM'],
  copy_file_range: ['EIO', ...SPACE, 'ENOMEM', 'EINTR'],
  execve: ['EIO', 'EMFILE', 'ENOMEM'],
  faccessat: ['EIO', 'ENOMEM'],
  faccessat2: ['EIO', 'ENOMEM'],
  fallocate: ['EIO', ...SPACE, 'EINTR'],
  fchmod: ['EIO'],
  fchown: ['EIO', 'EDQUOT'],
  fdatasync: ['EIO', ...SPACE, 'EINTR'],
  flock: ['EINTR', 'ENOMEM'],
  fsync: ['EIO', ...SPACE, 'EINTR'],
  ftruncate: ['EIO', 'EINTR'],
  getdents64: ['EIO'],
  link: ['EIO', ...SPACE, 'ENOMEM'],
  linkat: ['EIO', ...SPACE, 'ENOMEM'],
  mkdir: ['EIO', ...SPACE, 'ENOMEM'],
  mkdirat: ['EIO', ...SPACE, 'ENOMEM'],
  newfstatat: ['EIO', 'ENOMEM'],
  open: ['EIO', 'EMFILE', 'ENOMEM', 'EINTR'],
  openat: ['EIO', 'EMFILE', 'ENOMEM', 'EINTR'],
  pread64: ['EIO', 'EINTR'],
  pwrite64: ['EIO', ...SPACE, 'EINTR'],
  read: ['EIO', 'EINTR'],
  rename: ['EIO', ...SPACE, 'ENOMEM'],
  renameat: ['EIO', ...SPACE, 'ENOMEM'],
  renameat2: ['EIO', ...SPACE, 'ENOMEM'],
  rmdir: ['EIO', 'ENOMEM'],
  statx: ['EIO', 'ENOMEM'],
  unlink: ['EIO', 'ENOMEM'],
  unlinkat: ['EIO', 'ENOMEM'],
  write: ['EIO', ...SPACE, 'EINTR'],
};

/**
 * What to inject at a point so that the program is told no lie: the call is not executed, and says that it failed, or
 * did nothing.
 */
export function faultsAt({ name, line }: Point): string[] {
  if (name === 'ioctl') {
    if (line.includes('FIEMAP')) return errors(['EIO', 'ENOMEM', 'EINTR']);
    // Saying 0 and leaving the destination short is a known fault of file systems.
    if (line.includes('FICLONE')) return [...errors(['EIO', ...SPACE, 'ENOMEM', 'EINTR']), 'retval=0'];
    return [];
  }
  if (name === 'fcntl') return line.includes('F_SETLEASE, F_UNLCK') ? [] : errors(['ENOMEM']);
  const failures = errors(FAILURES[name] ?? []);
  if (name === 'openat' && line.includes('O_CREAT')) failures.push(...errors(SPACE));
  // Copied nothing and says so, as some file systems do.
  if (name === 'copy_file_range') failures.push('retval=0');
  return failures;
}

function errors(names: readonly string[]): string[] {
  return names.map((name) => `error=${name}`);
}

/** The same whatever random names a run chose. */
export function shapeOf(line: string): string {
  return line
    .replace(/[0-9a-f]+-[0-9a-f]{6,16}(?=[-/>"])/g, 'SESSION')
    .replace(/-r[0-9a-f]{16}/g, '-rREADY')
    .replace(/host-\w{6}|point-\d+/g, 'HOST')
    .replace(/0x[0-9a-f]+/g, 'POINTER')
    .replace(/\b\d+(?=<)/g, 'FD')
    .replace(/\(deleted\)/g, '');
}

/**
 * One point for each state of the disk that a kill can leave. The killed call is not executed, so a kill at a call that
 * follows one which changed nothing leaves what a kill at that one left.
 */
export function distinctStates(points: readonly Point[]): Point[] {
  return points.filter((point, i) => {
    const previous = points[i - 1];
    return previous === undefined || previous.caller !== point.caller || changesDisk(previous);
  });
}

/** The first of the points at which the same is done to files of one kind: a transfer handles chunk after chunk. */
export function firstOfEach(points: readonly Point[]): Point[] {
  const seen = new Set<string>();
  return points.filter(({ caller, line }) => {
    const key = `${caller} ${headOf(line).replaceAll(/\d+/g, 'N')}`;
    return seen.size < seen.add(key).size;
  });
}

/** All that had changed before a point, in words: several writes to one file in a row count as one. */
export function historyAt(points: readonly Point[], point: Point): string {
  const changes = points.slice(0, points.indexOf(point)).filter(changesDisk);
  const heads = changes.map(({ line }) => headOf(line));
  return heads.filter((head, i) => head !== heads[i - 1]).join('\n');
}

// What is not here is taken for a change. Locks and leases end with the process; what is flushed was changed before.
const READS = new RegExp(
  '^(access|close|execve|faccessat2?|fcntl|fdatasync|flock|fstat|fstatfs|fsync|getdents64|getxattr|lseek|mmap|' +
    'newfstatat|pread64|read|readlink|readlinkat|statfs|statx|sync_file_range)$',
);
const OPENS = /^(open|openat|openat2)$/;
const OPENS_ANEW = /O_CREAT|O_TRUNC|O_TMPFILE/;
const ASKS = /FIEMAP|GETFLAGS|GETXATTR|GETUUID|GETSIZE/;

function changesDisk({ name, line }: Point): boolean {
  if (OPENS.test(name)) return OPENS_ANEW.test(line);
  return !READS.test(name) && !(name === 'ioctl' && ASKS.test(line));
}

/**
 * The call's name, the file, and the name in it or the command: what strace also tells of a call that is not executed.
 */
export function headOf(line: string): string {
  const [, file = '', rest = ''] =
    /^(\w+\([^,)]*)(, (?:"[^"]*"|(?!POINTER)[A-Z_]+))?/.exec(shapeOf(line)) ?? [];
  return /^p?(read|write)/.test(line) ? file : file + rest;
}
