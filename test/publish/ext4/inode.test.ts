// One inode on disk: read back as the kernel reads it, and as debugfs does.
import { expect, test } from 'vitest';
import { crc32c } from '../../../src/image/crc32c.js';
import { NO_ATTRIBUTES } from '../../../src/publish/ext4/attribute-area.js';
import {
  EARLIEST_S,
  encodeInode,
  holdsTime,
  type InodePlace,
  inodeSeedOf,
  LATEST_S,
} from '../../../src/publish/ext4/inode.js';
import { INODE, readSplit16, readSplit32 } from '../../../src/publish/ext4/layout.js';
import { planTree } from '../../../src/publish/ext4/tree-plan.js';
import type { TreeNode } from '../../../src/publish/tree/file-tree.js';
import { faultsOf, run } from '../../fixtures/images.js';
import { Random } from '../../fixtures/random.js';
import { rejection } from '../../fixtures/rejection.js';
import { lacks } from '../../fixtures/tools.js';
import { FACTS, folderOf, imageOf } from '../../fixtures/tree-images.js';

const SECOND_NS = 1_000_000_000n;

const FIFO: TreeNode = { ...FACTS, kind: 'fifo' };
const PLACE: InodePlace = {
  number: 12,
  links: 1,
  sizeBytes: 0,
  blocks: 0,
  block: Buffer.alloc(0),
  hasExtents: false,
  attributeBlock: 0,
};

const encode = (node: Partial<TreeNode>, place: Partial<InodePlace> = {}, seed = 0) =>
  encodeInode({ ...FIFO, ...node } as TreeNode, { ...PLACE, ...place }, NO_ATTRIBUTES, seed);

/** As the kernel's ext4_decode_extra_time. */
function decodeTime(inode: Buffer, field: number, extraField: number): bigint {
  const extra = inode.readUInt32LE(extraField);
  const seconds = BigInt(inode.readInt32LE(field)) + (BigInt(extra & 3) << 32n);
  return seconds * SECOND_NS + BigInt(extra >>> 2);
}

test('every time that is held is read back to the nanosecond, in all four fields', () => {
  const random = new Random(51);
  const edges = [EARLIEST_S, -1n, 0n, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n, 2n ** 33n, LATEST_S];
  const times = edges.flatMap((s) => [s * SECOND_NS, s * SECOND_NS + 1n, s * SECOND_NS + 999_999_999n]);
  for (let i = 0; i < 500; i++) {
    const seconds = BigInt(random.below(2 ** 32)) * 4n + BigInt(random.below(4)) + EARLIEST_S;
    times.push(seconds * SECOND_NS + BigInt(random.below(1e9)));
  }
  for (const mtimeNs of times) {
    expect(holdsTime(mtimeNs), `${mtimeNs}`).toBe(true);
    const inode = encode({ mtimeNs });
    for (const field of ['atime', 'ctime', 'mtime', 'crtime'] as const)
      expect(decodeTime(inode, INODE[field], INODE[`${field}Extra`]), `${field} ${mtimeNs}`).toBe(mtimeNs);
  }
  for (const mtimeNs of [EARLIEST_S * SECOND_NS - 1n, (LATEST_S + 1n) * SECOND_NS, 2n ** 90n, -(2n ** 90n)])
    expect(holdsTime(mtimeNs), `${mtimeNs}`).toBe(false);
});

test('numbers of more than 16 or 32 bits are split over their two fields', () => {
  const inode = encode(
    { uid: 0xfffe_1234, gid: 0x1_0000 },
    { sizeBytes: 2 ** 43 + 5, blocks: 2 ** 32 + 1, links: 65_000, attributeBlock: 2 ** 40 + 9 },
  );
  expect(readSplit16(inode, INODE.uidLow, INODE.uidHigh)).toBe(0xfffe_1234);
  expect(readSplit16(inode, INODE.gidLow, INODE.gidHigh)).toBe(0x1_0000);
  expect(readSplit32(inode, INODE.sizeLow, INODE.sizeHigh)).toBe(2 ** 43 + 5);
  // In sectors.
  expect(inode.readUInt32LE(INODE.sectorsLow) + inode.readUInt16LE(INODE.sectorsHigh) * 2 ** 32).toBe(
    2 ** 35 + 8,
  );
  expect(inode.readUInt16LE(INODE.links)).toBe(65_000);
  expect(
    inode.readUInt32LE(INODE.attributeBlockLow) + inode.readUInt16LE(INODE.attributeBlockHigh) * 2 ** 32,
  ).toBe(2 ** 40 + 9);
});

test('the checksum is of all other bytes, by a seed that is of this inode', () => {
  const seed = inodeSeedOf(7, 12);
  expect(seed).not.toBe(inodeSeedOf(7, 13));
  expect(seed).not.toBe(inodeSeedOf(8, 12));
  const inode = encode({ mode: 0o7777 }, {}, seed);
  const checksum = readSplit16(inode, INODE.checksumLow, INODE.checksumHigh);
  inode.writeUInt16LE(0, INODE.checksumLow);
  inode.writeUInt16LE(0, INODE.checksumHigh);
  expect(checksum).toBe(crc32c(seed, inode));
});

test('debugfs tells of each kind of file what was put in', async ({ skip }) => {
  const missing = lacks('mke2fs', 'debugfs', 'e2fsck');
  if (missing !== undefined) skip(missing);
  const facts = { ...FACTS, uid: 2_000_000_000, gid: 70_000, mode: 0o7751 };
  const device = (major: number, minor: number): TreeNode => ({
    ...facts,
    kind: 'block device',
    major,
    minor,
  });
  const link = (length: number): TreeNode => ({
    ...facts,
    kind: 'symlink',
    target: Buffer.alloc(length, 't'),
  });
  const tree = {
    fifo: { ...facts, kind: 'fifo' },
    socket: { ...facts, kind: 'socket' },
    small: device(255, 255),
    large: device(4095, 1_048_575),
    minor: device(8, 256),
    major: device(256, 0),
    short: link(59),
    long: link(60),
    longest: link(4095),
    folder: { ...folderOf(), ...facts },
  } as const satisfies Record<string, TreeNode>;
  const image = await imageOf(folderOf(tree));
  expect(await faultsOf(image)).toBe('');
  const stat = async (name: string) => (await run('debugfs', ['-R', `stat ${name}`, image])).stdout;
  const types = {
    fifo: 'FIFO',
    socket: 'socket',
    small: 'block special',
    short: 'symlink',
    folder: 'directory',
  };
  for (const [name, type] of Object.entries(types)) {
    const told = await stat(name);
    expect(told).toContain(`Type: ${type}`);
    expect(told).toMatch(/Mode: {2}07751/);
    expect(told).toMatch(/User:\s*2000000000\s+Group:\s*70000/);
  }
  // With two digits at least.
  const numbers = { small: '255:255', large: '4095:1048575', minor: '08:256', major: '256:00' };
  for (const [name, number] of Object.entries(numbers))
    expect((await stat(name)).replace('(New-style) ', ''), name).toMatch(
      new RegExp(`major/minor number: ${number} `),
    );
  for (const [name, blocks] of [
    ['short', 0],
    ['long', 8],
    ['longest', 8],
  ] as const)
    expect(await stat(name)).toContain(`Blockcount: ${blocks}\n`);
});

test.each<[string, Partial<TreeNode>]>([
  ['a target without a byte', { kind: 'symlink', target: Buffer.alloc(0) }],
  ['a target of 4,096 bytes', { kind: 'symlink', target: Buffer.alloc(4096, 'x') }],
])('%s is refused before anything is made', async (_, node) => {
  const root = folderOf({ here: { ...FIFO, ...node } as TreeNode });
  const { message } = await rejection(
    planTree(root, 'the tree', () => {}),
    'IMAGE_INVALID',
  );
  expect(message).toContain('/here of the tree');
});
