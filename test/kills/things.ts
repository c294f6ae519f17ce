// What an operation makes or takes away beside slots: stacks, snapshots and exported images, told by looking at the
// disk alone; and tags in a registry.
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { exists, sha256 } from '../fixtures/files.js';
import { faultsOf, readInside } from '../fixtures/images.js';
import type { Tagged } from './artifacts.js';
import type { Left } from './operations.js';
import type { Site } from './site.js';

const IMAGE = 'rootfs.ext4';

/** `stack NAME`, `snapshot NAME`, `export NAME` and `tag NAME`, each with what tells it from another of its name. */
export async function thingsIn(site: Site): Promise<Map<string, string>> {
  const things = new Map<string, string>();
  const add = async (kind: string, name: string, path: string) => {
    const { ino, size } = await stat(path);
    things.set(`${kind} ${name}`, `inode ${ino}, ${size} bytes`);
  };
  for (const name of await visible(site.templateDir)) {
    const image = join(site.templateDir, name, IMAGE);
    if (await exists(image)) await add('stack', name, image);
  }
  for (const name of await visible(join(site.stateFolder, 'snapshots')))
    await add('snapshot', name, join(site.stateFolder, 'snapshots', name));
  for (const name of await visible(site.jail)) await add('export', name, join(site.jail, name));
  for (const [name, { digest }] of await tagsOf(site)) things.set(`tag ${name}`, digest);
  return things;
}

/** What is not whole of them. */
export async function thingFaults(site: Site): Promise<string[]> {
  const faults: string[] = [];
  for (const name of await visible(site.templateDir))
    for (const fault of await stackFaults(site, name)) faults.push(`stack ${name}: ${fault}`);
  for (const name of await visible(site.jail))
    for (const fault of await exportFaults(site, name)) faults.push(`export ${name}: ${fault}`);
  for (const name of (await tagsOf(site)).keys())
    for (const fault of (await site.artifacts?.faultsOf(site.repository, name)) ?? [])
      faults.push(`tag ${name}: ${fault}`);
  return faults;
}

/** What is not as the call leaves it when it resolves. */
export async function unlike(site: Site, leaves: Readonly<Record<string, Left>>): Promise<string[]> {
  const things = await thingsIn(site);
  const faults: string[] = [];
  for (const [thing, wanted] of Object.entries(leaves)) {
    const isThere = things.has(thing);
    const isRight =
      wanted === 'there' || wanted === 'absent'
        ? isThere === (wanted === 'there')
        : isThere && (await imageOf(site, thing)) === site.digestOf(wanted);
    if (!isRight) faults.push(`${thing} should be ${wanted}`);
  }
  return faults;
}

/** The digest of the image that a stack or a tag has. */
async function imageOf(site: Site, thing: string): Promise<string | undefined> {
  const [kind, name] = thing.split(' ') as [string, string];
  if (kind === 'stack') return sha256(await readFile(site.templatePath(name)));
  return (await tagsOf(site)).get(name)?.sha256;
}

async function tagsOf({ artifacts, repository }: Site): Promise<ReadonlyMap<string, Tagged>> {
  return artifacts === undefined ? new Map() : artifacts.tags(repository);
}

async function stackFaults(site: Site, name: string): Promise<string[]> {
  const folder = join(site.templateDir, name);
  const names = await readdir(folder);
  // A removal that was cut off: the stack is gone, and the next one of that name takes the folder.
  if (names.length === 0) return [];
  if (names.join() !== IMAGE) return [`holds ${names.join()}`];
  const image = join(folder, IMAGE);
  if (site.digests.has(sha256(await readFile(image)))) return [];
  // Made of a folder: a filesystem with that folder's files in it.
  const faults = await faultsOf(image);
  if (faults !== '') return [faults];
  const hostname = await readInside(image, '/etc/hostname');
  return hostname === 'microvm\n' ? [] : [`/etc/hostname in it is ${JSON.stringify(hostname)}`];
}

/** A slot's very image, or a copy with the bytes of its template. */
async function exportFaults(site: Site, name: string): Promise<string[]> {
  const path = join(site.jail, name);
  if (name !== 'disk') return ['is nothing that anybody asked for'];
  const { ino, dev } = await stat(path);
  for (const slot of await visible(site.clonesDir)) {
    const image = await stat(join(site.clonesDir, slot, IMAGE)).catch(() => undefined);
    if (image?.ino === ino && image.dev === dev) return [];
  }
  return site.digests.has(sha256(await readFile(path))) ? [] : ['has bytes of no template'];
}

async function visible(folder: string): Promise<string[]> {
  if (!(await exists(folder))) return [];
  return (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();
}
