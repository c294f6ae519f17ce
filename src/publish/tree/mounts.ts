// Lists what is mounted inside a folder.
import { dirname } from 'node:path';
import { mapInSlices } from '../../system/map-in-slices.js';
import { decodeOctal, readMountInfo } from '../../system/mount-table.js';

interface Mount {
  readonly id: string;
  /** The mount that its mount point lies in. */
  readonly parent: string;
  /** Latin-1. */
  readonly point: string;
}

/**
 * Returns the mount points below `root`, a real path in Latin-1 without a slash at its end. Undefined without /proc.
 * Then only a different device number reveals a mount.
 */
export async function mountsBelow(root: string): Promise<ReadonlySet<string> | undefined> {
  const text = await readMountInfo('latin1');
  if (text === undefined) return undefined;
  const below = `${root}/`;
  const mounts = (await mapInSlices(text.split('\n'), mountIn)).filter((mount) => mount !== undefined);
  const isHidden = hidden(mounts);
  return new Set(
    mounts
      .filter(
        (mount) => mount.point.startsWith(below) && mount.point.length > below.length && !isHidden(mount),
      )
      .map(({ point }) => point),
  );
}

/** proc(5): the first two fields are the mount and its parent, the fifth is the mount point, with octal escapes. */
function mountIn(line: string): Mount | undefined {
  const [id = '', parent = '', , , point] = line.split(' ', 5);
  return point === undefined ? undefined : { id, parent, point: decodeOctal(point) };
}

/** Whether a later mount on a folder above it hides a mount: such a mount has the same parent. */
function hidden(mounts: readonly Mount[]): (mount: Mount) => boolean {
  const byId = new Map(mounts.map((mount) => [mount.id, mount]));
  const pointsIn = new Map<string, Set<string>>();
  for (const { parent, point } of mounts)
    pointsIn.set(parent, (pointsIn.get(parent) ?? new Set()).add(point));
  return function isHidden(mount: Mount): boolean {
    const besides = pointsIn.get(mount.parent);
    for (let { point } = mount; point !== '/'; ) {
      point = dirname(point);
      if (besides?.has(point)) return true;
    }
    const parent = byId.get(mount.parent);
    return parent !== undefined && parent !== mount && isHidden(parent);
  };
}
