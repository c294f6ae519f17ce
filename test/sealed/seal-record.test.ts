// The record beside a sealed image: which image is believed to be the one that was sealed.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Identity } from '../../src/addon/identity.js';
import {
  isSealed,
  keyOf,
  parseRecord,
  partsOf,
  readRecord,
  type SealRecord,
} from '../../src/sealed/seal-record.js';
import { Host } from '../fixtures/host.js';

const SHA256 = 'ab'.repeat(32);
const IMAGE: Identity = {
  device: 1n,
  inode: 7n,
  sizeBytes: 4096,
  mtimeNs: 10n,
  ctimeNs: 11n,
  links: 1,
  mount: 1n,
};
const RECORD: SealRecord = {
  version: 1,
  templatePath: '/templates/debian/rootfs.ext4',
  template: { inode: '5', sizeBytes: 4096, mtimeNs: '9' },
  sha256: SHA256,
  sizeBytes: 4096,
  image: { inode: '7', sizeBytes: 4096, mtimeNs: '10', ctimeNs: '11' },
};

test("a folder's name tells digest, size and whether it is packed", () => {
  for (const packing of ['plain', 'packed'] as const) {
    const key = keyOf(SHA256, 4096, packing);
    expect(partsOf(key)).toEqual({ sha256: SHA256, sizeBytes: 4096, packed: packing === 'packed' });
  }
  for (const name of ['', SHA256, `${SHA256}-`, `${SHA256.toUpperCase()}-4096`, `${SHA256}-4096-other`])
    expect(partsOf(name), name).toBeUndefined();
});

test('an image is believed in the state that was sealed, and in no other', () => {
  const key = keyOf(SHA256, 4096);
  expect(isSealed(RECORD, key, IMAGE)).toBe(true);
  expect(isSealed(RECORD, keyOf(SHA256, 4096, 'packed'), IMAGE)).toBe(true);
  // The number of its device can change at the next boot.
  expect(isSealed(RECORD, key, { ...IMAGE, device: 2n, mount: 9n })).toBe(true);
  const changed = { inode: 8n, sizeBytes: 8192, mtimeNs: 0n, ctimeNs: 0n, links: 2 };
  for (const [what, value] of Object.entries(changed))
    expect(isSealed(RECORD, key, { ...IMAGE, [what]: value }), what).toBe(false);
  expect(isSealed(RECORD, keyOf('cd'.repeat(32), 4096), IMAGE)).toBe(false);
  expect(isSealed(RECORD, keyOf(SHA256, 8192), IMAGE)).toBe(false);
});

test('a record that is damaged, of another version or of other things is none', () => {
  expect(parseRecord(JSON.stringify(RECORD))).toEqual(RECORD);
  const { image: _, ...withoutImage } = RECORD;
  for (const text of [
    '',
    'null',
    '[]',
    JSON.stringify(RECORD).slice(0, -1),
    JSON.stringify(withoutImage),
    JSON.stringify({ ...RECORD, version: 2 }),
    JSON.stringify({ ...RECORD, sha256: 'short' }),
    JSON.stringify({ ...RECORD, sizeBytes: '4096' }),
    JSON.stringify({ ...RECORD, extents: 1.5 }),
  ])
    expect(parseRecord(text), text).toBeUndefined();
});

test('a folder without a record has none, and one that cannot be read is an error', async () => {
  const { root } = await Host.in();
  expect(await readRecord(root)).toBeUndefined();
  await writeFile(join(root, 'record.json'), JSON.stringify(RECORD));
  expect(await readRecord(root)).toEqual(RECORD);
  await mkdir(join(root, 'other', 'record.json'), { recursive: true });
  expect(await readRecord(join(root, 'other'))).toBeUndefined();
});
