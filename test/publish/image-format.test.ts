// What a file is, told by its first bytes.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { formatOf, isCompression } from '../../src/publish/image-format.js';
import { Host } from '../fixtures/host.js';

test.each<[string, Buffer, string]>([
  ['nothing', Buffer.alloc(0), 'raw'],
  ['zeros', Buffer.alloc(4096), 'raw'],
  ['one byte of a magic', Buffer.from([0x1f]), 'raw'],
  ['gzip', gzipSync('x'), 'gzip'],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00]), 'xz'],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00]), 'zstd'],
  ['qcow2', Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), 'qcow2'],
  [
    'a skippable frame before zstd',
    Buffer.from([0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2, 0x28, 0xb5, 0x2f, 0xfd]),
    'zstd',
  ],
  [
    'a skippable frame that leads past the end',
    Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff]),
    'raw',
  ],
])('%s is taken for what it is', async (_what, bytes, format) => {
  const { root } = await Host.in();
  const path = join(root, 'file');
  await writeFile(path, bytes);
  expect(await formatOf(path)).toBe(format);
});

test('what is compressed is known', () => {
  expect((['raw', 'gzip', 'zstd', 'xz', 'qcow2', 'tar'] as const).filter(isCompression)).toEqual([
    'gzip',
    'zstd',
    'xz',
  ]);
});
