// Images of an artifact put together from what is there already and from a registry that sends ranges of blobs.
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, inject, onTestFinished, test } from 'vitest';
import type { Template } from '../../src/catalog/template.js';
import { ManagedFolder } from '../../src/folder/managed-folder.js';
import { assembleImages } from '../../src/remote/assemble-image.js';
import type { ChunkedFile } from '../../src/remote/chunked-file.js';
import { KnownChunks } from '../../src/remote/known-chunks.js';
import { Pace } from '../../src/remote/pace.js';
import type { TransferProgress } from '../../src/remote/transfer-options.js';
import { Task } from '../../src/system/task.js';
import { allocatedBytes, exists, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { bytesOf, DATA_BYTES, PackRegistry } from '../fixtures/pack-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

beforeEach(({ skip }) => {
  const missing = lacks('zstd');
  if (missing !== undefined) skip(missing);
});

async function setting(folder = inject('scratch')) {
  const { root } = await Host.in(folder);
  const registry = await PackRegistry.start();
  const managed = new ManagedFolder(join(root, 'known'));
  onTestFinished(() => managed.close());
  const known = new KnownChunks(managed);
  const progress: TransferProgress[] = [];
  const assemble = (
    images: Readonly<Record<string, ChunkedFile>>,
    { templates = [], signal }: { templates?: readonly Template[]; signal?: AbortSignal } = {},
  ) => {
    registry.asked.length = 0;
    const all = async function* () {
      yield* templates;
    };
    const wanted = Object.entries(images).map(([name, chunked]) => ({ name, chunked, templates: all }));
    const onProgress = (each: TransferProgress) => void progress.push(each);
    const context = { reader: registry.reader, pace: new Pace(), known, onProgress };
    return assembleImages(new Task('a pull', signal), wanted, join(root, 'made'), context);
  };
  return { root, registry, known, progress, assemble, made: (name: string) => join(root, 'made', name) };
}

test('chunks are fetched once each, zeros are holes, and progress ends with all of the data', async () => {
  const { registry, made, assemble, progress } = await setting();
  const disk = await registry.add(1, 0, 2, 0, 0, 3);
  const { reusedBytes, lists } = await assemble({ disk });
  expect(lists.map(({ bytes }) => bytes)).toEqual([disk.list.bytes]);
  expect((await readFile(made('disk'))).equals(bytesOf(1, 0, 2, 0, 0, 3))).toBe(true);
  expect(reusedBytes).toBe(0);
  expect(registry.asked).toHaveLength(4);
  expect(await allocatedBytes(made('disk'))).toBeLessThan(MiB);
  const [bytesDone, bytesTotal] = [3 * DATA_BYTES, 3 * DATA_BYTES];
  expect(progress.at(-1)).toMatchObject({ step: 'download', bytesDone, bytesTotal });
});

test('what an earlier pull left is kept by the chunk, whatever its mode and length; damage is fetched', async () => {
  const { root, registry, made, assemble } = await setting();
  const disk = await registry.add(1, 2, 0, 3);
  await mkdir(join(root, 'made'));
  const left = [bytesOf(1), pattern(DATA_BYTES, 9), bytesOf(0, 3), pattern(77)];
  await writeFile(made('disk'), Buffer.concat(left), { mode: 0o400 });
  expect((await assemble({ disk })).reusedBytes).toBe(2 * DATA_BYTES);
  expect(registry.asked).toEqual([disk.index.digest, disk.packs[1]?.digest]);
  expect((await readFile(made('disk'))).equals(bytesOf(1, 2, 0, 3))).toBe(true);
  expect((await assemble({ disk })).reusedBytes).toBe(3 * DATA_BYTES);
  expect(registry.asked).toEqual([disk.index.digest]);
});

test.each([[[1, 0, 3]], [[0, 1, 2, 0, 0, 3, 0]], [[0]], [[1]]])(
  'of chunks %j, what was written where zeros belong does not stay',
  async (numbers) => {
    const { root, registry, made, assemble } = await setting();
    const disk = await registry.add(...numbers);
    await mkdir(join(root, 'made'));
    await writeFile(made('disk'), pattern(disk.sizeBytes, 9));
    await assemble({ disk });
    expect((await readFile(made('disk'))).equals(bytesOf(...numbers))).toBe(true);
  },
);

test('chunks come from templates and from other images of the pull, wherever they lie there', async () => {
  const { root, registry, known, made, assemble, progress } = await setting();
  const [path, { list }] = [join(root, 'template'), await registry.add(0, 2, 5)];
  await writeFile(path, bytesOf(0, 2, 5));
  const sha256 = await sha256Of(path);
  await known.put(sha256, list);
  const templates = [{ path, sha256, identity: { sizeBytes: list.sizeBytes } } as Template];
  const [memory, disk] = [await registry.add(3, 4, 3), await registry.add(1, 2, 0, 3)];
  const { reusedBytes } = await assemble({ memory, disk }, { templates });
  expect((await readFile(made('memory'))).equals(bytesOf(3, 4, 3))).toBe(true);
  expect((await readFile(made('disk'))).equals(bytesOf(1, 2, 0, 3))).toBe(true);
  expect(reusedBytes).toBe(2 * DATA_BYTES);
  expect(registry.asked.slice(2).sort()).toEqual(
    [...memory.packs, disk.packs[0]].map((pack) => pack?.digest).sort(),
  );
  expect(progress.at(-1)).toMatchObject({
    bytesDone: 6 * DATA_BYTES,
    bytesTotal: 6 * DATA_BYTES,
    reusedBytes,
  });
});

test('a blob that is gone fails the pull; what came before is kept, what did not takes no space', async () => {
  const { registry, made, assemble } = await setting();
  const disk = await registry.add(1, 2, 3);
  const { digest = '' } = disk.packs[2] ?? {};
  const blob = registry.blobs.get(digest) as Buffer;
  registry.blobs.delete(digest);
  await expect(assemble({ disk })).rejects.toThrow(digest);
  expect((await stat(made('disk'))).size).toBe(3 * DATA_BYTES);
  expect(await allocatedBytes(made('disk'))).toBeLessThan(3 * DATA_BYTES);
  registry.blobs.set(digest, blob);
  expect((await assemble({ disk })).reusedBytes).toBe(2 * DATA_BYTES);
  expect((await readFile(made('disk'))).equals(bytesOf(1, 2, 3))).toBe(true);
});

test('a disk that is too full, and an abort, end it before any pack is asked for', async ({ skip }) => {
  const missing = lacksRoot();
  if (missing !== undefined) skip(missing);
  const full = newWorkspace().mount('full', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs']);
  const { registry, made, assemble } = await setting(full);
  const disk = await registry.add(1, 2, 3, 4);
  await rejection(assemble({ disk }), 'ENOSPC');
  expect(registry.asked).toEqual([disk.index.digest]);
  expect(await allocatedBytes(made('disk'))).toBe(0);
  await rejection(assemble({ disk }, { signal: AbortSignal.abort() }), 'ABORT_ERR');
  expect(await exists(made('disk'))).toBe(true);
});
