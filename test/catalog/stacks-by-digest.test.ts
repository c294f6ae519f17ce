// Which stack a digest tells: the first that had it, for every process on the folder.
import { chmod, mkdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { StacksByDigest } from '../../src/catalog/stacks-by-digest.js';
import { ManagedFolder } from '../../src/folder/managed-folder.js';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';

const DIGEST = sha256('template');

async function stacksOn(host: Host): Promise<StacksByDigest> {
  const folder = new ManagedFolder(host.clonesDir);
  onTestFinished(() => folder.close());
  await folder.use(async () => {});
  return new StacksByDigest(folder);
}

const recordsOf = (host: Host) => join(host.clonesDir, '.microvm-rootfs/stacks');

test('the first stack is told by the digest, every other one by a file in the slot', async () => {
  const host = await Host.in();
  const stacks = await stacksOn(host);
  expect(stacks.isKnown(DIGEST)).toBe(false);
  expect(stacks.stackToStore(DIGEST, 'debian')).toBe('debian');
  expect(await stacks.firstWith(DIGEST)).toBeUndefined();
  await stacks.record(DIGEST, 'debian');
  await stacks.record(DIGEST, 'other');
  expect(stacks.isKnown(DIGEST)).toBe(true);
  expect(stacks.stackToStore(DIGEST, 'debian')).toBeUndefined();
  expect(stacks.stackToStore(DIGEST, 'other')).toBe('other');
  expect(await stacks.firstWith(DIGEST)).toBe('debian');
  expect(await readlink(join(recordsOf(host), DIGEST))).toBe('debian');
});

test('processes that record at once agree on one stack', async () => {
  const host = await Host.in();
  const all = await Promise.all(Array.from({ length: 8 }, () => stacksOn(host)));
  await Promise.all(all.map((stacks, i) => stacks.record(DIGEST, `stack-${i}`)));
  const first = await Promise.all(all.map((stacks) => stacks.firstWith(DIGEST)));
  expect(new Set(first).size).toBe(1);
  all.forEach((stacks, i) => {
    expect(stacks.stackToStore(DIGEST, `stack-${i}`)).toBe(
      first[i] === `stack-${i}` ? undefined : `stack-${i}`,
    );
  });
});

test('names of other scripts, and the longest, come back as they were', async () => {
  const host = await Host.in();
  for (const stack of ['größe ß', 'line\nbreak', 'x'.repeat(255), '…'.repeat(85), '-rf', 'a.b']) {
    await (await stacksOn(host)).record(sha256(stack), stack);
    expect(await (await stacksOn(host)).firstWith(sha256(stack))).toBe(stack);
  }
});

test('where nothing can be recorded each slot names its stack, and what another process records is found', async () => {
  const host = await Host.in();
  const stacks = await stacksOn(host);
  await writeFile(recordsOf(host), 'a file in the place of the folder');
  await stacks.record(DIGEST, 'debian');
  expect(stacks.isKnown(DIGEST)).toBe(true);
  expect(stacks.stackToStore(DIGEST, 'debian')).toBe('debian');
  expect(await stacks.firstWith(DIGEST)).toBeUndefined();
  await rm(recordsOf(host));
  await (await stacksOn(host)).record(DIGEST, 'other');
  expect(await stacks.firstWith(DIGEST)).toBe('other');
  expect(stacks.stackToStore(DIGEST, 'debian')).toBe('debian');
});

test('what is no link is no name', async () => {
  const host = await Host.in();
  const stacks = await stacksOn(host);
  await mkdir(join(recordsOf(host), DIGEST), { recursive: true });
  expect(await stacks.firstWith(DIGEST)).toBeUndefined();
  await stacks.record(DIGEST, 'debian');
  expect(stacks.stackToStore(DIGEST, 'debian')).toBe('debian');
});

test('records are of the folder: another one in its place has its own', async () => {
  const host = await Host.in();
  const folder = new ManagedFolder(host.clonesDir);
  onTestFinished(() => folder.close());
  const stacks = new StacksByDigest(folder);
  await folder.use(() => stacks.record(DIGEST, 'debian'));
  expect(stacks.isKnown(DIGEST)).toBe(true);
  await rename(host.clonesDir, `${host.clonesDir}.away`);
  await mkdir(host.clonesDir);
  await folder.use(async ({ sessionPath }) => {
    // The first look finds that the folder is another.
    await writeFile(join(sessionPath, 'x'), '');
  });
  expect(stacks.isKnown(DIGEST)).toBe(false);
  await folder.use(() => stacks.record(DIGEST, 'other'));
  expect(await stacks.firstWith(DIGEST)).toBe('other');
  await chmod(host.clonesDir, 0o755);
});

test('ten thousand digests are remembered, and those before are read again', async () => {
  const host = await Host.in();
  const stacks = await stacksOn(host);
  await stacks.record(DIGEST, 'debian');
  const folder = recordsOf(host);
  // Of another process, whose records are read rather than flushed.
  for (let i = 0; i < 10_000; i++) {
    const digest = `${i}`.padStart(64, '0');
    await symlink('many', join(folder, digest));
    await stacks.firstWith(digest);
  }
  expect(stacks.isKnown(DIGEST)).toBe(false);
  // A slot names its stack rather than none.
  expect(stacks.stackToStore(DIGEST, 'debian')).toBe('debian');
  expect(await stacks.firstWith(DIGEST)).toBe('debian');
  expect(stacks.stackToStore(DIGEST, 'debian')).toBeUndefined();
  expect(await readlink(join(folder, DIGEST))).toBe('debian');
}, 60_000);
