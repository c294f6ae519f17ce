// The way to a file in a tree with symbolic links.

/** As Linux does: path_resolution(7). */
const LINKS_FOLLOWED = 40;

/**
 * The folders on the way, from the root. Links are followed as the guest will: never out of the tree. `step` gives a
 * folder in a folder, or the target of the link that is there. Undefined if there is a loop of links.
 */
export function foldersAt<Folder>(
  root: Folder,
  names: readonly string[],
  step: (folder: Folder, name: string, depth: number) => Folder | Buffer,
): Folder[] | undefined {
  let path = [root];
  let left = [...names].reverse();
  for (let links = 0; left.length > 0; ) {
    const name = left.pop() as string;
    if (name === '..') path = path.length > 1 ? path.slice(0, -1) : path;
    if (name === '..' || name === '.' || name === '') continue;
    const next = step(path.at(-1) as Folder, name, path.length);
    if (!Buffer.isBuffer(next)) {
      path.push(next);
      continue;
    }
    if (++links > LINKS_FOLLOWED) return undefined;
    const target = next.toString('latin1');
    left = [...left, ...target.split('/').reverse()];
    if (target.startsWith('/')) path = [root];
  }
  return path;
}
