// The folders of templates, clones and snapshots must be separate. In a common folder a stack would look like a slot,
// and releasing it would remove a template.
import { realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, normalize, relative } from 'node:path';
import { failedWith, RootfsError } from './errors.js';
import { type MountEntry, mountTable, otherPathsOf } from './mount-table.js';
import { DEFAULT_SNAPSHOTS_FOLDER, STATE_FOLDER } from './state-folder.js';

export interface Folders {
  readonly templateDir: string;
  readonly clonesDir: string;
  /** Undefined: in our own folder within the clones folder. */
  readonly snapshotsDir: string | undefined;
}

/** How the names of a slot's files begin. */
const SLOT_FILE_PREFIX = 'rootfs.ext4';

/** Compares the paths only. Does no I/O. Throws `FOLDERS_OVERLAP`. */
export function refuseOverlap(folders: Folders): void {
  for (const [a, b] of pairs(folders)) {
    if (isWithin(plain(a.path), plain(b.path)) && !isDefaultSnapshotsDir(a, b)) throw overlapError(a, b);
  }
}

/** Compares inodes, since symbolic links and bind mounts give one folder two paths. Throws `FOLDERS_OVERLAP`. */
export async function refuseOverlapOnDisk(folders: Folders): Promise<void> {
  const mounts = await mountTable();
  const compared = pairs(folders).filter(([a, b]) => !isDefaultSnapshotsDir(a, b));
  // At once, since the first clone of a process waits for this.
  const overlaps = await Promise.all(compared.map(([a, b]) => isWithinOnDisk(a.path, b.path, mounts)));
  const [a, b] = compared[overlaps.indexOf(true)] ?? [];
  if (a !== undefined && b !== undefined) throw overlapError(a, b);
}

/**
 * Throws `FOLDERS_OVERLAP` if a new file would be taken for a template, a slot, a part of one or a snapshot. Further
 * files in the folder of a slot are its user's own matter.
 */
export async function refuseAmongOurs(path: string, folders: Folders): Promise<void> {
  const paths = await pathsOf(dirname(path), await mountTable());
  for (const { name, path: given } of named(folders)) {
    const outer = await realPathOfWhatIsThere(given);
    const isTaken = (folder: string) => isPlaceOfOurs(name, relative(outer, join(folder, basename(path))));
    if (!(await paths.within(outer)).some(isTaken)) continue;
    throw new RootfsError(
      'FOLDERS_OVERLAP',
      `${path} is inside ${name} (${given}), where it could be mistaken for a template, slot or snapshot: choose a ` +
        'path outside',
      { path, dest: given },
    );
  }
}

function isPlaceOfOurs(name: keyof Folders, place: string): boolean {
  const [first, second, ...deeper] = place.split('/');
  const isOfSlot = name === 'clonesDir' && first !== STATE_FOLDER && second !== undefined;
  return !isOfSlot || (deeper.length === 0 && second.startsWith(SLOT_FILE_PREFIX));
}

/** Whether a file lies in one of these folders, by whatever path. */
export async function liesAmongOurs(path: string, folders: Folders): Promise<boolean> {
  const mounts = await mountTable();
  for (const { path: ours } of named(folders)) if (await isWithinOnDisk(path, ours, mounts)) return true;
  return false;
}

interface Named {
  readonly name: keyof Folders;
  readonly path: string;
}

function named(folders: Folders): Named[] {
  return (['templateDir', 'clonesDir', 'snapshotsDir'] as const)
    .map((name) => ({ name, path: folders[name] }))
    .filter((folder): folder is Named => folder.path !== undefined);
}

/** Every pair, in both orders. */
function pairs(folders: Folders): [Named, Named][] {
  const all = named(folders);
  return all.flatMap((a) => all.filter((b) => b !== a).map((b): [Named, Named] => [a, b]));
}

/** Snapshots may be in our own folder inside the clones folder, which is their default place. */
function isDefaultSnapshotsDir(inner: Named, outer: Named): boolean {
  const ours = join(plain(outer.path), STATE_FOLDER, DEFAULT_SNAPSHOTS_FOLDER);
  return inner.name === 'snapshotsDir' && outer.name === 'clonesDir' && plain(inner.path) === ours;
}

function plain(path: string): string {
  return normalize(path).replace(/(?<=.)\/+$/, '');
}

function isWithin(inner: string, outer: string): boolean {
  return inner === outer || outer === '/' || inner.startsWith(`${outer}/`);
}

/**
 * Whether `outer` is `inner` or a folder above it. Parts of `inner` that do not exist will be created below those that
 * do.
 */
export async function isWithinOnDisk(
  inner: string,
  outer: string,
  mounts: readonly MountEntry[],
): Promise<boolean> {
  const paths = await pathsOf(inner, mounts);
  if ((await paths.within(await realPathOfWhatIsThere(outer))).length > 0) return true;
  // Without /proc nothing tells of mounts.
  const [target, ...above] = await Promise.all([outer, ...foldersAbove(paths.real)].map(fileId));
  return target !== undefined && above.includes(target);
}

/** Of a path without links: itself, and each folder above it. */
function foldersAbove(path: string): string[] {
  return path === '/' ? ['/'] : [path, ...foldersAbove(dirname(path))];
}

/** The paths of a file: without links, and by bind mounts of it or of a folder above it. */
async function pathsOf(path: string, mounts: readonly MountEntry[]) {
  const real = await realPathOfWhatIsThere(path);
  const all = [real, ...otherPathsOf(real, mounts)];
  return {
    real,
    /** Those in a folder that this process sees, given without links: a later mount can hide another. */
    async within(outer: string): Promise<string[]> {
      const found: string[] = [];
      for (const each of all)
        if (isWithin(each, outer) && (each === real || (await isSameFile(each, real)))) found.push(each);
      return found;
    },
  };
}

/** Of paths that do not exist, the folders above them count. */
async function isSameFile(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([a, b].map(fileId));
  if (one === undefined && other === undefined) return isSameFile(dirname(a), dirname(b));
  return one === other;
}

/** Halves what may be there: a path can have thousands of folders that are missing. */
async function realPathOfWhatIsThere(path: string): Promise<string> {
  const whole = await realPathIfThere(path);
  if (whole !== undefined) return whole;
  const names = path.split('/');
  let [there, missing, real] = [1, names.length, '/'];
  while (missing - there > 1) {
    const middle = (there + missing) >>> 1;
    const found = await realPathIfThere(names.slice(0, middle).join('/'));
    if (found === undefined) missing = middle;
    else [there, real] = [middle, found];
  }
  return join(real, names.slice(there).join('/'));
}

async function realPathIfThere(path: string): Promise<string | undefined> {
  try {
    return await realpath(path);
  } catch (error) {
    if (!isAway(error)) throw error;
    return undefined;
  }
}

async function fileId(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if (!isAway(error)) throw error;
    return undefined;
  }
}

/** A folder that this process cannot read is reported when it is used. */
function isAway(error: unknown): boolean {
  return failedWith(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP');
}

function overlapError(inner: Named, outer: Named): RootfsError {
  const where = plain(inner.path) === plain(outer.path) ? 'are one folder' : 'overlap';
  return new RootfsError(
    'FOLDERS_OVERLAP',
    `${inner.name} (${inner.path}) and ${outer.name} (${outer.path}) ${where}: use separate folders`,
    { path: inner.path, dest: outer.path },
  );
}
