// Extended attributes on disk: where each goes, how much there is room for, and that e2fsprogs reads them.
import { expect, test } from 'vitest';
import {
  encodeAttributeBlock,
  planAttributes,
  writeInodeAttributes,
} from '../../../src/publish/ext4/attribute-area.js';
import { BLOCK_BYTES, INODE, INODE_BYTES } from '../../../src/publish/ext4/layout.js';
import type { Attribute } from '../../../src/publish/tree/file-tree.js';
import { Host } from '../../fixtures/host.js';
import { faultsOf, pattern, run } from '../../fixtures/images.js';
import { Random } from '../../fixtures/random.js';
import { lacks } from '../../fixtures/tools.js';
import { FACTS, fileOf, folderOf, imageOf } from '../../fixtures/tree-images.js';

const PREFIX: Readonly<Record<number, string>> = { 1: 'user.', 4: 'trusted.', 6: 'security.', 7: 'system.' };

/** As the kernel reads them: an entry of 16 bytes and its name, until four zeros; values by their offsets. */
function decode(area: Buffer, start: number): Attribute[] {
  const attributes: Attribute[] = [];
  let lowest = area.length;
  let at = start;
  while (area.readUInt32LE(at) !== 0) {
    const length = area.readUInt8(at);
    const size = area.readUInt32LE(at + 8);
    const offset = area.readUInt16LE(at + 2);
    const name = area.toString('latin1', at + 16, at + 16 + length);
    const value = Buffer.from(area.subarray(offset, offset + size));
    if (size > 0) {
      expect(offset % 4).toBe(0);
      expect(offset + size).toBeLessThanOrEqual(lowest);
      lowest = offset;
    }
    attributes.push({ name: `${PREFIX[area.readUInt8(at + 1)]}${name}`, value });
    at += 16 + Math.ceil(length / 4) * 4;
  }
  expect(at + 4).toBeLessThanOrEqual(lowest);
  return attributes;
}

function written(
  attributes: readonly Attribute[],
): { inInode: Attribute[]; inBlock: Attribute[] } | undefined {
  const plan = planAttributes(attributes);
  if (plan === undefined) return undefined;
  const inode = Buffer.alloc(INODE_BYTES);
  writeInodeAttributes(inode, plan.inInode);
  const block = encodeAttributeBlock(plan.inBlock, 1234, 0);
  expect(block.length).toBe(BLOCK_BYTES);
  const area = inode.subarray(INODE.attributes + 4);
  return { inInode: plan.inInode.length === 0 ? [] : decode(area, 0), inBlock: decode(block, 32) };
}

test('whatever fits is all there once, in the inode or in the block, and the block is sorted', () => {
  const random = new Random(21);
  const seen = { inode: 0, block: 0, both: 0, refused: 0 };
  for (let round = 0; round < 800; round++) {
    const attributes = new Map<string, Buffer>();
    for (let count = random.below(12); count > 0; count--) {
      const name = `${random.pick(Object.values(PREFIX))}${'n'.repeat(1 + random.below(40))}${random.below(99)}`;
      attributes.set(name, pattern(random.pick([0, 1, 3, 4, 5, 60, 500, 900]), count));
    }
    const given = [...attributes].map(([name, value]) => ({ name, value }));
    const parts = written(given);
    if (parts === undefined) {
      seen.refused++;
      continue;
    }
    const { inInode, inBlock } = parts;
    seen[inInode.length > 0 ? (inBlock.length > 0 ? 'both' : 'inode') : 'block']++;
    const byName = (list: readonly Attribute[]) => new Map(list.map(({ name, value }) => [name, value]));
    expect(inInode.length + inBlock.length).toBe(given.length);
    expect(byName([...inInode, ...inBlock])).toEqual(byName(given));
    const keys = inBlock.map(({ name }) => [
      Object.values(PREFIX).findIndex((prefix) => name.startsWith(prefix)),
      name.length,
      name,
    ]);
    for (let i = 1; i < keys.length; i++) {
      const [a, b] = [keys[i - 1] as [number, number, string], keys[i] as [number, number, string]];
      const prefixes = Object.values(PREFIX).map((prefix) => prefix.length);
      const rest = ([kind, length]: [number, number, string]) => length - (prefixes[kind] as number);
      expect(
        a[0] < b[0] || (a[0] === b[0] && (rest(a) < rest(b) || (rest(a) === rest(b) && a[2] < b[2]))),
      ).toBe(true);
    }
  }
  expect(
    Object.values(seen).every((count) => count > 0),
    JSON.stringify(seen),
  ).toBe(true);
});

test('the inode is filled to its last byte, then a block, and one byte more is refused', async ({ skip }) => {
  const missing = lacks('mke2fs', 'e2fsck', 'debugfs');
  if (missing !== undefined) skip(missing);
  // An entry of 16 bytes, a name of 4, and an end of 4.
  const inInode = INODE_BYTES - INODE.attributes - 4 - 24;
  const inBlock = BLOCK_BYTES - 32 - 24;
  const one = (length: number, name = 'user.abcd') => ({ name, value: pattern(length) });
  expect(planAttributes([one(inInode)])).toMatchObject({ inInode: { length: 1 }, inBlock: [] });
  expect(planAttributes([one(inInode + 1)])).toMatchObject({ inInode: [], inBlock: { length: 1 } });
  expect(planAttributes([one(inBlock)])).toMatchObject({ inInode: [], inBlock: { length: 1 } });
  expect(planAttributes([one(inBlock + 1)])).toBeUndefined();
  const both = [one(inInode), one(inBlock, 'user.bcde')];
  expect(planAttributes(both)).toMatchObject({ inInode: { length: 1 }, inBlock: { length: 1 } });
  expect(planAttributes([...both, { name: 'user.c', value: Buffer.alloc(0) }])).toBeUndefined();

  const host = await Host.in();
  const root = folderOf({
    inode: await fileOf(host.root, Buffer.alloc(0), { attributes: [one(inInode)] }),
    block: await fileOf(host.root, Buffer.alloc(0), { attributes: [one(inBlock)] }),
    both: await fileOf(host.root, Buffer.alloc(0), { attributes: both }),
    odd: await fileOf(host.root, Buffer.alloc(0), {
      attributes: [
        { name: `user.${'x'.repeat(255)}`, value: Buffer.from('long name') },
        { name: 'user.\xfc\xff', value: Buffer.from('not UTF-8') },
        { name: 'trusted.empty', value: Buffer.alloc(0) },
      ],
    }),
    link: { ...FACTS, kind: 'symlink', target: Buffer.from('x'), attributes: [one(10, 'trusted.link')] },
  });
  const image = await imageOf(root, host);
  expect(await faultsOf(image)).toBe('');
  for (const [path, name, length] of [
    ['inode', 'user.abcd', inInode],
    ['block', 'user.abcd', inBlock],
    ['both', 'user.abcd', inInode],
    ['both', 'user.bcde', inBlock],
  ] as const) {
    const { stdout } = await run('debugfs', ['-R', `ea_get -x ${path} ${name}`, image]);
    expect(stdout.replaceAll(/[^0-9a-f]/g, ''), `${path} ${name}`).toContain(pattern(length).toString('hex'));
  }
  expect((await run('debugfs', ['-R', 'ea_list odd', image])).stdout).toContain('trusted.empty');
});

test('the inode takes those that leave the block room for the rest', () => {
  const one = (name: string, length: number) => ({ name: `user.${name}`, value: pattern(length) });
  const list = [one('a', 20), one('zz', 44), one('mmm', 3980)];
  const parts = written(list);
  expect(parts?.inInode.map(({ name }) => name)).toEqual(['user.zz']);
  expect(parts?.inBlock.map(({ name }) => name)).toEqual(['user.a', 'user.mmm']);
  expect(written([...list, one('b', 8)])).toBeUndefined();
});

test('what ext4 has no number for, or no room in one byte, is not held', () => {
  const value = Buffer.from('x');
  for (const name of ['btrfs.compression', 'user', 'user.', 'trusted.', 'x', '', `user.${'x'.repeat(256)}`])
    expect(planAttributes([{ name, value }]), name).toBeUndefined();
  expect(planAttributes([{ name: 'system.posix_acl_accessory', value }])).toBeUndefined();
  expect(planAttributes([])).toEqual({ inInode: [], inBlock: [] });
});

test('an access list loses the ids that it needs no ids for, and an incomplete entry', () => {
  const acl = Buffer.from('0200000001000600ffffffff02000400d204000020000000ffffffff0102', 'hex');
  const [entry] = planAttributes([{ name: 'system.posix_acl_default', value: acl }])?.inInode ?? [];
  expect(entry).toMatchObject({ index: 3, name: { length: 0 } });
  expect(entry?.value.toString('hex')).toBe('010000000100060002000400d204000020000000');
});
