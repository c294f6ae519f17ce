// The blocks of a folder: as many as were counted, and every name is found in them.
import { expect, test } from 'vitest';
import { crc32c } from '../../../src/image/crc32c.js';
import { encodeFolder, type FolderEntry, FolderSize } from '../../../src/publish/ext4/folder-blocks.js';
import { BLOCK_BYTES } from '../../../src/publish/ext4/layout.js';
import { Random } from '../../fixtures/random.js';

const SEED = 99;
const TAIL = 12;

/** As the kernel walks through a block: from entry to entry by their lengths, to the end. */
function decode(block: Buffer): { name: string; inode: number; type: number }[] {
  const found: { name: string; inode: number; type: number }[] = [];
  let at = 0;
  while (at < BLOCK_BYTES - TAIL) {
    const length = block.readUInt16LE(at + 4);
    const nameLength = block.readUInt8(at + 6);
    expect(length % 4).toBe(0);
    expect(length).toBeGreaterThanOrEqual(8 + nameLength);
    const inode = block.readUInt32LE(at);
    if (inode !== 0)
      found.push({
        inode,
        type: block.readUInt8(at + 7),
        name: block.toString('latin1', at + 8, at + 8 + nameLength),
      });
    at += length;
  }
  expect(at).toBe(BLOCK_BYTES - TAIL);
  expect(block.subarray(at, at + 8).toString('hex')).toBe('000000000c0000de');
  expect(block.readUInt32LE(at + 8)).toBe(crc32c(SEED, block.subarray(0, at)));
  return found;
}

const DOTS: FolderEntry[] = [
  { name: '.', inode: 2, kind: 'folder' },
  { name: '..', inode: 2, kind: 'folder' },
];

const files = (names: readonly string[]): FolderEntry[] =>
  names.map((name, i) => ({ name, inode: i + 12, kind: 'file' }));

function blockCount(names: readonly string[]): number {
  const size = new FolderSize();
  for (const name of names) size.add(name);
  return size.blocks;
}

test('any names are found again in order, in as many blocks as were counted for them', async () => {
  const random = new Random(41);
  for (let round = 0; round < 60; round++) {
    const longest = random.pick([1, 8, 40, 255]);
    const names = Array.from({ length: random.below(400) }, (_, i) =>
      `${i}`.padEnd(1 + random.below(longest), '\xfc').slice(0, 255),
    );
    const { blocks } = await encodeFolder([...DOTS, ...files(names)], SEED, 0);
    expect(blocks).toHaveLength(blockCount(names));
    expect(blocks.flatMap(decode).map(({ name }) => name)).toEqual(['.', '..', ...names]);
  }
});

test('a block is filled to its last byte, and the next name begins another', async () => {
  // Two dots of 12 bytes each, and fifteen names of 264.
  const long = Array.from({ length: 15 }, (_, i) => `${i}`.padEnd(255, 'x'));
  const left = BLOCK_BYTES - TAIL - 24 - 15 * 264;
  const last = 'y'.repeat(left - 8);
  for (const [name, blocks] of [
    [last, 1],
    [`${last}y`, 2],
  ] as const) {
    const names = [...long, name];
    expect(blockCount(names)).toBe(blocks);
    const { blocks: encoded } = await encodeFolder([...DOTS, ...files(names)], SEED, 0);
    expect(encoded).toHaveLength(blocks);
    expect(encoded.flatMap(decode)).toHaveLength(names.length + 2);
  }
});

test('blocks that a folder has already are kept, empty ones too', async () => {
  const { blocks } = await encodeFolder(DOTS, SEED, 4);
  expect(blocks).toHaveLength(4);
  expect(blocks.map((block) => decode(block).length)).toEqual([2, 0, 0, 0]);
  expect((await encodeFolder([], SEED, 0)).blocks.map(decode)).toEqual([[]]);
});

test('each kind of file has its number', async () => {
  const kinds = ['file', 'folder', 'character device', 'block device', 'fifo', 'socket', 'symlink'] as const;
  const entries = kinds.map((kind, i) => ({ name: kind, inode: i + 1, kind }));
  const { blocks, folders } = await encodeFolder([...DOTS, ...entries], SEED, 0);
  expect(folders).toBe(3);
  const [block] = blocks;
  expect(decode(block as Buffer).map(({ type }) => type)).toEqual([2, 2, 1, 2, 3, 4, 5, 6, 7]);
});
