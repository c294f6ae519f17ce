// The last check of an image before it appears: which error comes first, and what is done to the image.
import { appendFile, copyFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, inject, test } from 'vitest';
import { finishImage, noFilesystem } from '../../src/publish/check-image.js';
import type { PublishOptions } from '../../src/publish/publish-options.js';
import { Task } from '../../src/system/task.js';
import { readRange, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, MiB, makeExt4Image, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';

const OTHER = 'f'.repeat(64);
let root: string;
let image: string;

beforeEach(async () => {
  ({ root } = await Host.in(inject('scratch')));
  image = join(root, 'image');
  await makeExt4Image(image, 8 * MiB);
});

const finish = (options: PublishOptions = {}, signal?: AbortSignal, e2fsck = 'e2fsck') =>
  finishImage(new Task('a test', signal), e2fsck, { image, source: 'SOURCE', mode: 0o440 }, options);

test('a clean image is left as it is but for its mode, and its digest is told, with progress to its end', async () => {
  const sha256 = await sha256Of(image);
  const steps: unknown[] = [];
  expect(await finish({ expectedSha256: sha256, onProgress: (progress) => steps.push(progress) })).toBe(
    sha256,
  );
  expect(await sha256Of(image)).toBe(sha256);
  expect((await stat(image)).mode & 0o7777).toBe(0o440);
  expect(steps.at(-1)).toMatchObject({ step: 'hash', bytesDone: 8 * MiB, bytesTotal: 8 * MiB });
});

test('an image in need of a check is mended, alike each time; what is expected is its digest before', async () => {
  await run('debugfs', ['-w', '-R', 'ssv state 0', image]);
  const [before, copy] = [await sha256Of(image), join(root, 'copy')];
  await copyFile(image, copy);
  expect((await rejection(finish({ expectedSha256: OTHER }), 'DIGEST_MISMATCH')).message).toContain(before);
  expect(await sha256Of(image)).toBe(before);
  const mended = await finish({ expectedSha256: before });
  expect(mended).not.toBe(before);
  expect(await sha256Of(image)).toBe(mended);
  expect(await faultsOf(image)).toBe('');
  image = copy;
  expect(await finish()).toBe(mended);
});

test.each<[what: string, code: string, words: string, spoil: () => Promise<unknown>]>([
  ['is cut off', 'TEMPLATE_CORRUPT', 'it was cut off; get it again', () => truncate(image, 4 * MiB)],
  ['is empty', 'IMAGE_INVALID', 'there is no ext4 file system in SOURCE', () => truncate(image, 0)],
  ['has mmp', 'IMAGE_INVALID', 'SOURCE', () => run('tune2fs', ['-O', 'mmp', image])],
  ['is a shell script', 'IMAGE_INVALID', 'SOURCE', () => writeFile(image, '#!/bin/sh\n')],
  ['is damaged', 'E2FSCK_FAILED', 'SOURCE', () => run('debugfs', ['-w', '-R', 'clri <2>', image])],
])(
  'an image that %s: its source is named, and a wrong digest is told first',
  async (_, code, words, spoil) => {
    await spoil();
    const [sha256, { mode }] = [await sha256Of(image), await stat(image)];
    const mismatch = await rejection(finish({ expectedSha256: OTHER }), 'DIGEST_MISMATCH');
    expect(mismatch).toMatchObject({ path: 'SOURCE' });
    expect(mismatch.message).toContain(`has the SHA-256 ${sha256} rather than ${OTHER}`);
    for (const options of [{}, { expectedSha256: sha256 }]) {
      const error = await rejection(finish(options), code);
      expect(error).toMatchObject({ path: 'SOURCE' });
      expect(error.message).toContain(words);
      expect(error.message).not.toContain(image);
    }
    expect((await stat(image)).mode).toBe(mode);
  },
);

test('an abort, and an e2fsck that is not there, end it, and the mode stays', async () => {
  const { mode } = await stat(image);
  await rejection(finish({}, AbortSignal.abort()), 'ABORT_ERR');
  await rejection(finish({}, undefined, join(root, 'none')), 'E2FSCK_NOT_FOUND');
  expect((await stat(image)).mode).toBe(mode);
});

test('an image that is longer than its file system keeps what follows it', async () => {
  const sizeBytes = 9 * MiB + 3;
  await truncate(image, 9 * MiB);
  await appendFile(image, 'end');
  const sha256 = await sha256Of(image);
  expect(await finish()).toBe(sha256);
  expect((await stat(image)).size).toBe(sizeBytes);
  expect(`${await readRange(image, 9 * MiB, 8)}`).toBe('end');
});

test('what lies in a compressed file or a qcow2 is to be taken out of that first', async () => {
  const inner = join(root, 'inner');
  await writeFile(inner, Buffer.concat([Buffer.from('KDMV'), Buffer.alloc(4096)]));
  const sources: [string, Buffer][] = [
    ['decompress it with gzip -d, and convert it', Buffer.from([0x1f, 0x8b, 8, 0])],
    ['decompress it with zstd -d, and convert it', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
    ['convert it with qemu-img convert -O raw, and convert it', Buffer.from('QFI\xfb', 'latin1')],
    ['it is a VMDK disk image; convert it', Buffer.from('KDMV')],
  ];
  for (const [advice, head] of sources) {
    const source = join(root, 'source');
    await writeFile(source, head);
    const { code, message, path } = await noFilesystem(inner, source);
    expect({ code, path }).toEqual({ code: 'IMAGE_INVALID', path: source });
    expect(message).toContain(advice);
  }
  expect((await noFilesystem(inner, 'standard input')).message).toContain(
    'it is a VMDK disk image; convert it',
  );
});
