// Which users this process can tell apart: user_namespaces(7). A file of any other has the overflow id as its owner.
import { readFile } from 'node:fs/promises';

const ALL = '0 0 4294967295';

/** Undefined where the namespace has all users, or all groups. */
export interface OverflowIds {
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/** As in the first user namespace. */
export function hasAllUsers(): Promise<boolean> {
  return hasAll('uid_map');
}

export async function overflowIds(): Promise<OverflowIds> {
  return {
    uid: (await hasAll('uid_map')) ? undefined : await overflowId('overflowuid'),
    gid: (await hasAll('gid_map')) ? undefined : await overflowId('overflowgid'),
  };
}

/** A kernel without namespaces has no such file. */
async function hasAll(map: string): Promise<boolean> {
  const ranges = await readFile(`/proc/self/${map}`, 'latin1').catch(() => ALL);
  return ranges.trim().replace(/\s+/g, ' ') === ALL;
}

async function overflowId(name: string): Promise<number> {
  return Number(await readFile(`/proc/sys/kernel/${name}`, 'latin1').catch(() => '65534'));
}
