// What the kernel says about mounts, and the further paths that bind mounts give a file.
import { readFile } from 'node:fs/promises';
import { failedWith } from './errors.js';
import { mapInSlices } from './map-in-slices.js';

export interface MountEntry {
  /** Of the file system: `major:minor`. */
  readonly device: string;
  /** The part of the file system that is mounted: `/`, or less by a bind mount. */
  readonly root: string;
  readonly point: string;
}

let reading: Promise<unknown> = Promise.resolve();
let next: Promise<readonly MountEntry[]> | undefined;

/** Empty without /proc. Those who ask at once share one look, which begins after they asked. */
export function mountTable(): Promise<readonly MountEntry[]> {
  next ??= reading.then(() => {
    next = undefined;
    const table = readTable();
    reading = table.catch(() => {});
    return table;
  });
  return next;
}

async function readTable(): Promise<readonly MountEntry[]> {
  const text = (await readMountInfo('utf8')) ?? '';
  // A host of many jails has thousands of mounts.
  return (await mapInSlices(text.split('\n'), entryIn)).filter((entry) => entry !== undefined);
}

function entryIn(line: string): MountEntry | undefined {
  const [, , device = '', root = '', point] = line.split(' ', 5);
  return point === undefined ? undefined : { device, root: decodeOctal(root), point: decodeOctal(point) };
}

/** Undefined without /proc. That this process has no descriptor left, for example, says nothing of mounts. */
export async function readMountInfo(encoding: 'utf8' | 'latin1'): Promise<string | undefined> {
  try {
    return await readFile('/proc/self/mountinfo', encoding);
  } catch (error) {
    if (failedWith(error, 'EMFILE', 'ENFILE', 'ENOMEM')) throw error;
    return undefined;
  }
}

/** Some of them may be hidden by a later mount. `path` has no links. */
export function otherPathsOf(path: string, mounts: readonly MountEntry[]): string[] {
  return mounts.flatMap(({ device, root, point }) => {
    const rest = restWithin(path, point);
    if (rest === undefined) return [];
    const onDevice = joined(root, rest);
    return mounts.flatMap((other) => {
      const otherRest = other.device === device ? restWithin(onDevice, other.root) : undefined;
      const found = otherRest === undefined ? path : joined(other.point, otherRest);
      return found === path ? [] : [found];
    });
  });
}

/** proc(5): space, tab, newline and backslash are octal there. */
export function decodeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Undefined if it does not lie there; else empty, or what follows, with a slash. */
function restWithin(path: string, folder: string): string | undefined {
  if (!path.startsWith(folder)) return undefined;
  const rest = folder === '/' ? path.replace(/^\/$/, '') : path.slice(folder.length);
  return rest === '' || rest.startsWith('/') ? rest : undefined;
}

function joined(folder: string, rest: string): string {
  return `${folder.replace(/^\/$/, '')}${rest}` || '/';
}
