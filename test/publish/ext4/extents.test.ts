// Trees of extents: they hold what was put in, in as many blocks as were counted, and the kernel finds its way in them.
import { expect, test } from 'vitest';
import { crc32c } from '../../../src/image/crc32c.js';
import {
  type Extent,
  encodeExtents,
  readInodeExtents,
  treeBlocks,
} from '../../../src/publish/ext4/extents.js';
import { BLOCK_BYTES, INODE, INODE_BYTES } from '../../../src/publish/ext4/layout.js';

const SEED = 0x1234_5678;

function someExtents(count: number): Extent[] {
  return Array.from({ length: count }, (_, i) => ({
    logical: i * 3,
    physical: i % 2 === 0 ? 1000 + i : 2 ** 47 + i,
    count: i % 7 === 0 ? 32_768 : 1,
  }));
}

/** Follows the tree from its root, and checks each block on the way. */
function decode(root: Buffer, blocks: ReadonlyMap<number, Buffer>, depth = root.readUInt16LE(6)): Extent[] {
  expect(root.readUInt16LE(0)).toBe(0xf30a);
  expect(root.readUInt16LE(6)).toBe(depth);
  const entries = root.readUInt16LE(2);
  const most = root.length === INODE.blockLength ? 4 : 340;
  expect(root.readUInt16LE(4)).toBe(most);
  expect(entries).toBeLessThanOrEqual(most);
  if (root.length === BLOCK_BYTES) expect(root.readUInt32LE(4092)).toBe(crc32c(SEED, root.subarray(0, 4092)));
  return Array.from({ length: entries }, (_, i) => {
    const entry = root.subarray(12 * (i + 1), 12 * (i + 2));
    const logical = entry.readUInt32LE(0);
    if (depth === 0) {
      const physical = entry.readUInt16LE(6) * 2 ** 32 + entry.readUInt32LE(8);
      return [{ logical, count: entry.readUInt16LE(4), physical }];
    }
    const block = blocks.get(entry.readUInt16LE(8) * 2 ** 32 + entry.readUInt32LE(4));
    expect(block).toBeDefined();
    const below = decode(block as Buffer, blocks, depth - 1);
    expect(below[0]?.logical).toBe(logical);
    return below;
  }).flat();
}

test.each([0, 1, 4, 5, 340, 341, 1360, 1361, 115_600, 115_601, 462_401])(
  'a tree of %i extents holds them in order, in as many blocks as were counted',
  async (count) => {
    const extents = someExtents(count);
    let next = 2 ** 40;
    const { root, blocks } = await encodeExtents(extents, SEED, async () => next++);
    expect(root.length).toBe(60);
    expect(blocks).toHaveLength(treeBlocks(count));
    expect(next - 2 ** 40).toBe(treeBlocks(count));
    const decoded = decode(root, new Map(blocks.map(({ block, bytes }) => [block, bytes])));
    expect(decoded.length).toBe(count);
    for (const i of [0, 1, 339, 340, 1361, count - 1]) expect(decoded[i]).toEqual(extents[i]);
    expect(decoded.every(({ logical }, i) => logical === i * 3)).toBe(true);
  },
);

test('extents in an inode are read back, and a tree with blocks of its own is not mistaken for them', async () => {
  for (const count of [0, 1, 4]) {
    const { root } = await encodeExtents(someExtents(count), SEED, async () => 0);
    const inode = Buffer.alloc(INODE_BYTES);
    root.copy(inode, INODE.block);
    expect(readInodeExtents(inode)).toEqual(someExtents(count));
  }
  const { root } = await encodeExtents(someExtents(5), SEED, async () => 7);
  const inode = Buffer.alloc(INODE_BYTES);
  expect(() => readInodeExtents(inode)).toThrow('no extents');
  root.copy(inode, INODE.block);
  expect(() => readInodeExtents(inode)).toThrow('no extents');
});
