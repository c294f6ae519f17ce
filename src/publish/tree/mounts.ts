// Lists what is mounted inside a folder.
import { readFile, realpath } from 'node:fs/promises';

/**
 * Returns the mount points below `root`, spelled with `root` as prefix. Undefined without /proc. Then only a different
 * device number reveals a mount.
 */
export async function mountsBelow(root: string): Promise<ReadonlySet<string> | undefined> {
  const text = await readFile('/proc/self/mountinfo', 'latin1').catch(() => undefined);
  if (text === undefined) return undefined;
  const real = Buffer.from(await realpath(root)).toString('latin1');
  const below = `${real === '/' ? '' : real}/`;
  const spelled = `${Buffer.from(root).toString('latin1').replace(/\/+$/, '')}/`;
  const mounts = new Set<string>();
  for (const line of text.split('\n')) {
    // proc(5): the mount point is the fifth field. Spaces and similar characters are octal escapes.
    const point = line
      .split(' ')[4]
      ?.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (point?.startsWith(below) && point.length > below.length)
      mounts.add(spelled + point.slice(below.length));
  }
  return mounts;
}
