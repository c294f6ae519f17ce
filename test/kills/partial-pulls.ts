// What pulls that were cut off leave for the next one.
import { mkdir, open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exists, walk } from '../fixtures/files.js';
import { KiB } from '../fixtures/images.js';
import { TEMPLATE_BYTES } from './operations.js';
import type { Site } from './site.js';

const BLOCK_BYTES = 4 * KiB;

/** `pulls/` of the catalog and of the folder of snapshots. Each has a folder of our own in it. */
export function pullFolders(site: Site): string[] {
  const snapshots = join(site.stateFolder, 'snapshots');
  return [site.templateDir, snapshots].map((folder) => join(folder, '.microvm-rootfs/pulls'));
}

/** Folders of pulls that have not come to their end. */
export async function partialPulls(site: Site): Promise<string[]> {
  const found = await Promise.all(
    pullFolders(site).map(async (pulls) => {
      const names = (await exists(pulls)) ? await readdir(pulls) : [];
      return names.filter((name) => name !== '.microvm-rootfs').map((name) => join(pulls, name));
    }),
  );
  return found.flat();
}

const NEEDED = /^(stack|snapshot)(\/(rootfs\.ext4|memory|SHA256SUMS))?$/;

/** What no later pull needs. */
export async function partialFaults(site: Site): Promise<string[]> {
  const faults: string[] = [];
  for (const path of await partialPulls(site)) {
    const inside = (await walk(path)).map((each) => each.slice(path.length + 1));
    const isOne = /\/sha256-[0-9a-f]{64}$/.test(path);
    const strays = inside.filter((name) => !NEEDED.test(name));
    if (!isOne || strays.length > 0) faults.push(`partial pull ${path} holds ${inside.join()}`);
  }
  return faults;
}

/** Bytes that are in partial pulls. */
export async function fetchedBytes(site: Site): Promise<number> {
  let bytes = 0;
  for (const pull of await partialPulls(site))
    for (const path of (await walk(pull)).filter((each) => /\/(rootfs\.ext4|memory)$/.test(each)))
      bytes += BLOCK_BYTES * dataBlocks(await readFile(path)).length;
  return bytes;
}

/** Where the blocks begin that are not zero. */
function dataBlocks(bytes: Buffer): number[] {
  const starts: number[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES)
    if (bytes.subarray(at, at + BLOCK_BYTES).some((byte) => byte !== 0)) starts.push(at);
  return starts;
}

/** The first half of the data of stack `cargo`, as a pull leaves it that was killed then. */
export async function leaveHalf(site: Site): Promise<void> {
  const digest = (await site.artifacts?.digestOf('stack')) as string;
  const folder = join(pullFolders(site)[0] as string, digest.replace(':', '-'), 'stack');
  await mkdir(folder, { recursive: true });
  const image = await readFile(site.masterOf('cargo'));
  const starts = dataBlocks(image);
  const file = await open(join(folder, 'rootfs.ext4'), 'w', 0o600);
  await file.write(image.subarray(0, starts[(starts.length / 2) | 0]));
  await file.truncate(TEMPLATE_BYTES);
  await file.close();
}
