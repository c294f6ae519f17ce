// Lists mounts, from the kernel.
import { readFile, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface Mount {
  readonly mountPoint: string;
  /** `xfs`, `ext4`, … */
  readonly type: string;
  readonly source: string;
}

/** All mounts of this process's namespace; of several on one folder the last is the one that is seen. */
export async function mounts(): Promise<Mount[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).trimEnd().split('\n');
  return lines.flatMap((line) => {
    // Optional fields lie between the mount options and a lone dash: proc(5).
    const [left = '', right = ''] = line.split(' - ');
    const mountPoint = left.split(' ')[4];
    const [type = '', source = ''] = right.split(' ');
    return mountPoint === undefined
      ? []
      : [{ mountPoint: decodeOctal(mountPoint), type, source: decodeOctal(source) }];
  });
}

/** The mount that a path, which must exist, lies on. */
export async function mountOf(path: string): Promise<Mount | undefined> {
  const real = await realpath(path);
  const within = (mountPoint: string) =>
    mountPoint === '/' || real === mountPoint || real.startsWith(`${mountPoint}/`);
  let found: Mount | undefined;
  for (const mount of await mounts()) {
    if (!within(mount.mountPoint)) continue;
    if (found === undefined || mount.mountPoint.length >= found.mountPoint.length) found = mount;
  }
  return found;
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

/** The path itself, or the nearest folder above it that is there. */
export async function nearestExisting(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    return path === '/' ? path : nearestExisting(dirname(path));
  }
}

/** Space, tab, newline and backslash are octal there. */
function decodeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
}
