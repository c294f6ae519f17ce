// In how many pieces an image lies, where the file system tells.
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { native } from '../../src/addon/native.js';
import { extentCount, QUICK_EXTENTS, reflinkInTurn } from '../../src/image/extents.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { KiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const task = (signal?: AbortSignal) => new Task('cloning', signal);

/** A file of this many pieces, with a hole behind each. */
async function scatteredFile(folder: string, pieces: number): Promise<string> {
  const path = join((await Host.in(folder)).root, 'image');
  const file = await open(path, 'w');
  const step = 64 * KiB;
  for (let i = 0; i < pieces; i++) await file.write(pattern(4 * KiB, i + 1), 0, 4 * KiB, i * step);
  await file.truncate(pieces * step);
  await file.sync();
  await file.close();
  return path;
}

describeEachFilesystem((filesystem) => {
  test('pieces are counted where there is FIEMAP, and elsewhere nothing is told', async () => {
    for (const pieces of [0, 1, 300]) {
      const { source } = await native().openSource(await scatteredFile(filesystem.path, pieces));
      const count = await extentCount(source);
      native().dispose(source);
      if (!filesystem.fiemap) expect(count).toBeUndefined();
      // A file system may store neighbours apart, or keep small files in their inode.
      else if (pieces > 1) expect(count).toBeGreaterThanOrEqual(pieces);
      else expect(count).toBe(pieces);
    }
  });

  test('a reflink that was slow tells its pieces if they are many', async () => {
    const many = await scatteredFile(filesystem.path, QUICK_EXTENTS + 44);
    const few = await scatteredFile(filesystem.path, 10);
    const made = (path: string | undefined, ms: number) =>
      reflinkInTurn(
        task(),
        async () => {
          await sleep(ms);
          return 'made';
        },
        () => path,
      );
    const [result, told] = await made(many, 10);
    expect(result).toBe('made');
    if (filesystem.fiemap) expect(told.extents).toBeGreaterThan(QUICK_EXTENTS);
    else expect(told).toEqual({});
    expect((await made(few, 10))[1]).toEqual({});
    expect((await made(undefined, 10))[1]).toEqual({});
    // Removed since.
    expect((await made(`${many}.gone`, 10))[1]).toEqual({});
  });
});

test('a reflink that fails, or is aborted before its turn, is what the caller gets', async () => {
  const failing = reflinkInTurn(
    task(),
    async () => {
      throw new Error('no space');
    },
    () => 'unused',
  );
  await expect(failing).rejects.toThrow('no space');
  let ran = false;
  const aborted = reflinkInTurn(
    task(AbortSignal.abort()),
    async () => {
      ran = true;
    },
    () => undefined,
  );
  await rejection(aborted, 'ABORT_ERR');
  expect(ran).toBe(false);
});
