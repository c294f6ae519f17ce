// What must be true of the folders after a kill or a failure, told by looking at the disk alone.
import { execFile } from 'node:child_process';
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { parse } from '../../src/catalog/digest-record.js';
import { ChunkList } from '../../src/remote/chunk-list.js';
import { exists, sha256, walk } from '../fixtures/files.js';
import { dumpSuperblock, faultsOf, KiB, pattern, run } from '../fixtures/images.js';
import { SLOT_FILES } from '../fixtures/slot-files.js';
import { TEMPLATE_BYTES } from './operations.js';
import { partialPulls, pullFolders } from './partial-pulls.js';
import type { Site } from './site.js';

const execute = promisify(execFile);

const IMAGE = 'rootfs.ext4';
/**
 * Files that may come and go in a whole slot. A copy that is not flushed yet has the first. A failed export leaves the
 * second: it is never removed, since another process may be exporting the slot, and without a second name it means
 * nothing.
 */
const UNSETTLED = `${IMAGE}.unsettled`;
const TRANSIENT = [UNSETTLED, `${IMAGE}.exported`];

/** Length and stamps of each slot, by name: what a failed operation must leave as it was. */
export async function slotsIn(site: Site): Promise<Map<string, string>> {
  const slots = new Map<string, string>();
  for (const name of await slotNames(site)) {
    const path = join(site.clonesDir, name);
    const length = await stat(join(path, IMAGE)).then(
      ({ size, ino }) => `${size} bytes, inode ${ino}`,
      () => 'no image',
    );
    const names = (await readdir(path)).filter((file) => !TRANSIENT.includes(file)).sort();
    slots.set(name, [length, ...names].join(', '));
  }
  return slots;
}

/** Every slot that is there is whole, and all of `wanted` are there. */
export async function slotFaults(
  site: Site,
  wanted: Iterable<string>,
  torn: readonly string[],
): Promise<string[]> {
  const names = await slotNames(site);
  const faults = [...wanted].filter((name) => !names.includes(name)).map((name) => `slot ${name} is gone`);
  for (const name of names) {
    if (torn.includes(name)) continue;
    for (const fault of await folderFaults(join(site.clonesDir, name), site.digests))
      faults.push(`slot ${name}: ${fault}`);
  }
  return faults;
}

/** Below staging and in trash. */
export async function leftovers(site: Site): Promise<string[]> {
  const pending = (await walk(site.clonesDir)).filter((path) => path.endsWith('.size.new'));
  const folders = [
    site.stateFolder,
    join(site.stateFolder, 'snapshots/.microvm-rootfs'),
    join(site.templateDir, '.microvm-rootfs'),
    ...pullFolders(site).map((pulls) => join(pulls, '.microvm-rootfs')),
  ];
  const left = await Promise.all(folders.map(leftoversOf));
  return [...left.flat(), ...pending].map((path) => path.slice(site.root.length + 1));
}

async function leftoversOf(stateFolder: string): Promise<string[]> {
  const staging = join(stateFolder, 'staging');
  const staged = (await namesIn(staging)).map((session) => walk(join(staging, session)));
  return [...(await Promise.all(staged)).flat(), ...(await walk(join(stateFolder, 'trash')))];
}

/** Empty files whose bytes are locked for the names of slots and stacks: they stay. */
const LOCKS = ['release.lock', 'replace.lock'];

/** Whatever nothing refers to, in a folder that was put in order and that no process works on: it is a fault. */
export async function garbage(site: Site): Promise<string[]> {
  const faults = (await leftovers(site)).map((path) => `left behind: ${path}`);
  const unsettled = (await walk(site.clonesDir)).filter((path) => path.endsWith(UNSETTLED));
  faults.push(...unsettled.map((path) => `never settled: ${path}`));
  faults.push(...(await partialPulls(site)).map((path) => `partial pull: ${path}`));
  faults.push(...(await chunkListFaults(site)));
  for (const name of await namesIn(site.clonesDir)) {
    if (name.includes('.') && name !== '.microvm-rootfs') faults.push(`stray ${name} among the slots`);
  }
  for (const name of await namesIn(site.stateFolder)) {
    const path = join(site.stateFolder, name);
    if (name === 'sealed') faults.push(...(await each(path, (key) => sealedFaults(path, key, site.digests))));
    else if (name === 'pool')
      faults.push(...(await each(path, (ready) => readyFaults(path, ready, site.digests))));
    else if (name === 'stacks') faults.push(...(await each(path, (digest) => stackFaults(path, digest))));
    else if (name === 'snapshots')
      faults.push(...(await each(path, (snapshot) => snapshotFaults(path, snapshot))));
    else if (name === 'digests') faults.push(...(await each(path, (record) => digestFaults(path, record))));
    else if (['staging', 'trash', 'spare'].includes(name)) {
      for (const left of await readdir(path)) faults.push(`left behind: ${name}/${left}`);
    } else if (!LOCKS.includes(name)) faults.push(`stray ${name} in the state folder`);
  }
  return faults;
}

async function each(path: string, look: (name: string) => Promise<string[]>): Promise<string[]> {
  const faults: string[] = [];
  for (const name of await readdir(path)) {
    for (const fault of await look(name)) faults.push(`${path.split('/').pop()}/${name}: ${fault}`);
  }
  return faults;
}

async function digestFaults(path: string, name: string): Promise<string[]> {
  return parse(name, await readlink(join(path, name))) === undefined ? ['is damaged'] : [];
}

async function sealedFaults(path: string, key: string, digests: ReadonlySet<string>): Promise<string[]> {
  const [digest = '', sizeBytes] = key.split('-');
  if (!digests.has(digest)) return ['of no template'];
  const names = (await readdir(join(path, key))).sort();
  if (names.join() !== `record.json,${IMAGE}`) return [`holds ${names.join()}`];
  const record = JSON.parse(await readFile(join(path, key, 'record.json'), 'utf8'));
  const image = await stat(join(path, key, IMAGE), { bigint: true });
  if (record.sha256 !== digest || `${record.sizeBytes}` !== sizeBytes)
    return ['its record is of another image'];
  if (record.image.inode !== `${image.ino}` || record.image.ctimeNs !== `${image.ctimeNs}`)
    return ['its record is of another file'];
  return imageFaults(join(path, key, IMAGE), digest, Number(sizeBytes));
}

/** Records stay when a template goes: slots of it may be there. */
async function stackFaults(path: string, digest: string): Promise<string[]> {
  if (!/^[0-9a-f]{64}$/.test(digest)) return ['is no digest'];
  const stack = await readlink(join(path, digest));
  return stack === '' || stack.includes('/') ? [`names ${stack}`] : [];
}

/** Lists of chunks of images that are or were here. */
async function chunkListFaults(site: Site): Promise<string[]> {
  const faults: string[] = [];
  for (const path of await walk(join(site.templateDir, '.microvm-rootfs/chunks'))) {
    try {
      const kept = await readFile(path);
      const [list, digest] = [kept.subarray(0, -32), kept.subarray(-32)];
      if (sha256(list) !== digest.toString('hex')) faults.push(`chunk list ${path} is damaged`);
      const { sizeBytes } = await ChunkList.parse(list);
      if (site.digests.has(basename(path)) && sizeBytes === TEMPLATE_BYTES) continue;
      faults.push(`chunk list ${path} is of no template`);
    } catch (error) {
      faults.push(`chunk list ${path}: ${error}`);
    }
  }
  return faults;
}

/** Whole, as sha256sum finds; what it keeps for itself is looked at as leftovers. */
async function snapshotFaults(path: string, name: string): Promise<string[]> {
  if (name === '.microvm-rootfs') return [];
  const names = (await readdir(join(path, name))).sort();
  if (![`SHA256SUMS,${IMAGE}`, `SHA256SUMS,memory,${IMAGE}`].includes(names.join()))
    return [`holds ${names.join()}`];
  const cwd = join(path, name);
  return execute('sha256sum', ['--quiet', '--check', 'SHA256SUMS'], { cwd }).then(
    () => [],
    (error) => [String(error)],
  );
}

async function readyFaults(path: string, name: string, digests: ReadonlySet<string>): Promise<string[]> {
  if (/^[0-9a-f]{64}-t[0-9a-f]{16}\.json$/.test(name)) return [];
  if (
    !/^[0-9a-f]{64}-\d+-(o\d+\.\d+-)?(m\d+-)?t[0-9a-f]{16}-(reflink|copy)-[0-9a-f]+-[0-9a-f]+-\d+$/.test(name)
  )
    return ['is no name of a ready slot'];
  return folderFaults(join(path, name), digests);
}

async function folderFaults(path: string, digests: ReadonlySet<string>): Promise<string[]> {
  const names = await readdir(path);
  const strays = names.filter((name) => !SLOT_FILES.includes(name));
  if (strays.length > 0) return [`holds ${strays.join()}`];
  const read = async (name: string) =>
    names.includes(name) ? await readFile(join(path, name), 'utf8') : undefined;
  const stamp = await read(`${IMAGE}.sha256`);
  if (stamp === undefined || !digests.has(stamp)) return [`its stamp is ${JSON.stringify(stamp)}`];
  if (!names.includes(IMAGE)) return ['has no image'];
  const size = await read(`${IMAGE}.size`);
  const { size: length } = await stat(join(path, IMAGE));
  // A grow that was cut off between its two renames: whoever looks at it completes it.
  const pending = (await read(`${IMAGE}.size.new`)) === `${length}` ? length : undefined;
  return imageFaults(join(path, IMAGE), stamp, pending ?? Number(size ?? TEMPLATE_BYTES));
}

async function imageFaults(path: string, digest: string, sizeBytes: number): Promise<string[]> {
  const { size } = await stat(path);
  if (size !== sizeBytes) return [`its image has ${size} bytes rather than ${sizeBytes}`];
  const found = sha256(await readFile(path));
  if (sizeBytes === TEMPLATE_BYTES)
    return found === digest ? [] : [`its image has other bytes than its stamp says`];
  return grownFaults(path, found, sizeBytes);
}

// Grown images are the same byte for byte (E2FSPROGS_FAKE_TIME), so each is looked at once.
const verdicts = new Map<string, Promise<string[]>>();

function grownFaults(path: string, digest: string, sizeBytes: number): Promise<string[]> {
  const known = verdicts.get(digest) ?? lookInside(path, sizeBytes);
  verdicts.set(digest, known);
  return known;
}

async function lookInside(path: string, sizeBytes: number): Promise<string[]> {
  const faults = await faultsOf(path);
  if (faults !== '') return [`e2fsck: ${faults}`];
  const { blockCount, blockSize } = await dumpSuperblock(path);
  if (blockCount * blockSize !== sizeBytes)
    return [`its filesystem has ${blockCount} blocks of ${blockSize}`];
  const { stdout } = await run('debugfs', ['-R', 'bmap /etc/blob 0', path]);
  const offset = Number(stdout.trim()) * blockSize;
  const bytes = (await readFile(path)).subarray(offset, offset + blockSize);
  return bytes.equals(pattern(64 * KiB).subarray(0, blockSize)) ? [] : ['a file in it has other bytes'];
}

async function slotNames(site: Site): Promise<string[]> {
  return (await namesIn(site.clonesDir)).filter((name) => !name.includes('.')).sort();
}

async function namesIn(path: string): Promise<string[]> {
  return (await exists(path)) ? readdir(path) : [];
}
