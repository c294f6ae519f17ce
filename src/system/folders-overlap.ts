// Folders of templates, clones and snapshots must lie apart: in one folder a stack would be a slot, and releasing it would remove a template.
import { realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, normalize } from 'node:path';
import { failedWith, RootfsError } from './errors.js';

export interface Folders {
  readonly templateDir: string;
  readonly clonesDir: string;
  /** Undefined: in our own folder within the clones folder. */
  readonly snapshotsDir: string | undefined;
}

/** In each folder, what is ours. No stack and no slot can have a name with a dot in front. */
export const STATE_FOLDER = '.microvm-rootfs';

/** By their paths alone: does no I/O. Throws `FOLDERS_OVERLAP`. */
export function refuseOverlap(folders: Folders): void {
  for (const [a, b] of pairs(folders)) {
    if (isWithin(plain(a.path), plain(b.path)) && !isOurPlace(a, b)) throw overlapError(a, b);
  }
}

/** By what the paths lead to: symbolic links and bind mounts give one folder two paths. Throws `FOLDERS_OVERLAP`. */
export async function refuseOverlapOnDisk(folders: Folders): Promise<void> {
  for (const [a, b] of pairs(folders)) {
    if (!isOurPlace(a, b) && (await isWithinOnDisk(a.path, b.path))) throw overlapError(a, b);
  }
}

interface Named {
  readonly name: keyof Folders;
  readonly path: string;
}

/** Each two of them, in both orders. */
function pairs(folders: Folders): [Named, Named][] {
  const named = (['templateDir', 'clonesDir', 'snapshotsDir'] as const)
    .map((name) => ({ name, path: folders[name] }))
    .filter((folder): folder is Named => folder.path !== undefined);
  return named.flatMap((a) => named.filter((b) => b !== a).map((b): [Named, Named] => [a, b]));
}

/** Snapshots may lie in our own folder within the clones folder, as they do unless they are told to lie elsewhere. */
function isOurPlace(inner: Named, outer: Named): boolean {
  const ours = join(plain(outer.path), STATE_FOLDER, 'snapshots');
  return inner.name === 'snapshotsDir' && outer.name === 'clonesDir' && plain(inner.path) === ours;
}

function plain(path: string): string {
  return normalize(path).replace(/(?<=.)\/+$/, '');
}

function isWithin(inner: string, outer: string): boolean {
  return inner === outer || outer === '/' || inner.startsWith(`${outer}/`);
}

/** Whether `outer` is `inner` or any folder above it. What is missing of `inner` will be made below what is there. */
async function isWithinOnDisk(inner: string, outer: string): Promise<boolean> {
  const target = await fileId(outer);
  const real = await realPathOfWhatIsThere(inner);
  if (target === undefined) return isWithin(real, await realPathOfWhatIsThere(outer));
  for (let folder = real; ; folder = dirname(folder)) {
    if ((await fileId(folder)) === target) return true;
    if (folder === '/') return false;
  }
}

async function realPathOfWhatIsThere(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (!isAway(error)) throw error;
    const parent = dirname(path);
    return parent === path ? path : join(await realPathOfWhatIsThere(parent), basename(path));
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

/** What this process can't look at is told of by whoever uses it. */
function isAway(error: unknown): boolean {
  return ['ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP'].some((code) => failedWith(error, code));
}

function overlapError(inner: Named, outer: Named): RootfsError {
  const where = plain(inner.path) === plain(outer.path) ? 'are one folder' : 'overlap';
  return new RootfsError(
    'FOLDERS_OVERLAP',
    `${inner.name} (${inner.path}) and ${outer.name} (${outer.path}) ${where}: use folders of which none lies in another`,
    { path: inner.path, dest: outer.path },
  );
}
