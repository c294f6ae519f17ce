// Lists mounts, from the kernel.
import { open, readFile, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { RootfsError } from '../index.js';

export interface Mount {
  readonly mountPoint: string;
  /** `xfs`, `ext4`, … */
  readonly type: string;
  readonly source: string;
  /** The folder of that file system which is seen there: not `/` for a bind mount of another. */
  readonly root: string;
}

/** All mounts of this process's namespace; of several on one folder the last is the one that is seen. */
export async function mounts(): Promise<Mount[]> {
  return (await numberedMounts()).map(({ mount }) => mount);
}

const MOUNTS = '/proc/self/mountinfo';

async function numberedMounts(): Promise<{ id: string; mount: Mount }[]> {
  const text = await readFile(MOUNTS, 'utf8').catch((error: NodeJS.ErrnoException) => {
    const words = `${MOUNTS} cannot be read, which tells what is mounted: mount /proc`;
    throw new RootfsError(error.code ?? 'EIO', words, { path: MOUNTS, cause: error });
  });
  const lines = text.trimEnd().split('\n');
  return lines.flatMap((line) => {
    // Optional fields lie between the mount options and a lone dash: proc(5).
    const [left = '', right = ''] = line.split(' - ');
    const [id = '', , , root = '', mountPoint] = left.split(' ');
    const [type = '', source = ''] = right.split(' ');
    return mountPoint === undefined
      ? []
      : [
          {
            id,
            mount: {
              mountPoint: decodeOctal(mountPoint),
              type,
              source: decodeOctal(source),
              root: decodeOctal(root),
            },
          },
        ];
  });
}

/** The mount that a path, which must exist, lies on. */
export async function mountOf(path: string): Promise<Mount | undefined> {
  const real = await realpath(path);
  const all = await numberedMounts();
  // A mount may be hidden by a later one above it, so its folder alone does not tell.
  const id = await mountIdOf(real).catch(() => undefined);
  const exact = all.find((each) => each.id === id);
  if (exact !== undefined) return exact.mount;
  const within = (mountPoint: string) =>
    mountPoint === '/' || real === mountPoint || real.startsWith(`${mountPoint}/`);
  let found: Mount | undefined;
  for (const { mount } of all) {
    if (!within(mount.mountPoint)) continue;
    if (found === undefined || mount.mountPoint.length >= found.mountPoint.length) found = mount;
  }
  return found;
}

// Opens nothing: no permission is needed, and a pipe or device is not touched. Node has no name for it.
const O_PATH = 0o10_000_000;

/** The number that the kernel has for the mount. */
async function mountIdOf(path: string): Promise<string | undefined> {
  const file = await open(path, O_PATH);
  try {
    return /^mnt_id:\s+(\d+)$/m.exec(await readFile(`/proc/self/fdinfo/${file.fd}`, 'utf8'))?.[1];
  } finally {
    await file.close();
  }
}

/** The type of file system that a path lies on. Undefined where /proc is not mounted. */
export async function fileSystemType(path: string): Promise<string | undefined> {
  const real = await realpath(path);
  return (await mountOf(real).catch(() => undefined))?.type;
}

/** What is mounted on exactly this folder. */
export async function mountedOn(folder: string): Promise<Mount | undefined> {
  const mount = await mountOf(folder);
  return mount?.mountPoint === (await realpath(folder)) ? mount : undefined;
}

/** The path itself, or the nearest folder above it that is there, as far as this user may look. */
export async function nearestExisting(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    // A loop of links, or a mount whose server is gone, is there.
    const { code = '' } = error as NodeJS.ErrnoException;
    if (path === '/' || !['ENOENT', 'ENOTDIR', 'EACCES'].includes(code)) throw error;
    return nearestExisting(dirname(path));
  }
}

/** Space, tab, newline and backslash are octal there. */
function decodeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
}
