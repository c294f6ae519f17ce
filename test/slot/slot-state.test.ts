// What the files of a slot say, without a disk: every state that crashes and other programs leave, and what is made of
// it.
import { expect, test } from 'vitest';
import type { Identity } from '../../src/addon/identity.js';
import type { SlotState } from '../../src/addon/native.js';
import {
  assessSlot,
  isForeignFolder,
  isSameSlot,
  isTorn,
  isUnstamped,
  unknownFile,
} from '../../src/slot/slot-state.js';
import { parseVmId } from '../../src/slot/vm-id.js';
import { thrown } from '../fixtures/rejection.js';

const SHA256 = 'a'.repeat(64);
const TEMPLATE_BYTES = 4096;

const identity = (sizeBytes: number, inode = 1n): Identity => ({
  device: 1n,
  inode,
  sizeBytes,
  mtimeNs: 1n,
  ctimeNs: 1n,
  links: 1,
  mount: 1n,
});
const image = (sizeBytes: number) => ({
  identity: identity(sizeBytes),
  regular: true,
  mode: 0o600,
  uid: 0,
  gid: 0,
  blocks: 8,
});
const WHOLE: SlotState = {
  kind: 'folder',
  folder: identity(10, 2n),
  image: image(TEMPLATE_BYTES),
  hasSidecars: true,
  sharesExtents: true,
  stamp: SHA256,
  createdAtMs: 1,
  sizeStamp: undefined,
  newSizeStamp: undefined,
  rawId: undefined,
  stack: undefined,
} as SlotState;
const HASHED = identity(TEMPLATE_BYTES);
const TEMPLATE = { path: '/t/debian/rootfs.ext4', sha256: SHA256, identity: HASHED, hashed: HASHED };

/** What differs from a whole slot; undefined for what it lacks. */
type Change = { readonly [Key in keyof SlotState]?: SlotState[Key] | undefined };

const assess = (state: Change, sizeBytes?: number, vm = 'vm-1') =>
  assessSlot('/c/vm-1', { vm: parseVmId(vm), sizeBytes }, TEMPLATE, { ...WHOLE, ...state } as SlotState);

test('a whole slot is handed out, also when it is longer than the template by as much as its size stamp says', () => {
  expect(assess({})).toMatchObject({ templateBytes: TEMPLATE_BYTES });
  expect(assess({ image: image(8192), sizeStamp: '8192' }, 8192)).toMatchObject({ sizeStamp: 8192 });
});

test.each<[string, Change, string]>([
  ['is a file', { kind: 'not-a-folder' }, 'SLOT_INVALID'],
  ['holds nothing of ours', { image: undefined, stamp: undefined, hasSidecars: false }, 'SLOT_INVALID'],
  ['has no stamp', { stamp: undefined }, 'SLOT_TORN'],
  ['has an empty stamp', { stamp: '' }, 'SLOT_TORN'],
  ['has a stamp of zeros', { stamp: '\0'.repeat(64) }, 'SLOT_TORN'],
  ['has a stamp of another program', { stamp: 'sha1:abc' }, 'STAMP_INVALID'],
  ['has an empty raw id', { rawId: '' }, 'SLOT_TORN'],
  ['is of another raw id', { rawId: 'vm:1' }, 'VM_ID_COLLISION'],
  ['has no image', { image: undefined }, 'SLOT_TORN'],
  ['has a shorter image', { image: image(TEMPLATE_BYTES - 1) }, 'SLOT_TORN'],
  ['has a longer image and no size stamp', { image: image(8192) }, 'SLOT_TORN'],
  ['has an image shorter than its size stamp', { image: image(8192), sizeStamp: '16384' }, 'SLOT_TORN'],
  [
    'is shorter than its template, as its size stamp says',
    { image: image(100), sizeStamp: '100' },
    'SLOT_TORN',
  ],
  ['is empty, as its size stamp says', { image: image(0), sizeStamp: '0' }, 'SLOT_TORN'],
  ['is of another template', { stamp: 'b'.repeat(64) }, 'STAMP_MISMATCH'],
])('a slot that %s is not handed out', (_what, state, code) => {
  thrown(() => assess(state), code);
});

test('a slot of another size is not handed out, and one whose grow was cut off is to be finished first', () => {
  thrown(() => assess({ image: image(8192), sizeStamp: '8192' }, 16384), 'SIZE_STAMP_MISMATCH');
  expect(assess({ newSizeStamp: '8192' })).toBe('grow-cut-off');
});

test('torn is what a crash can leave; what may be somebody else’s is not', () => {
  const torn = (state: Change) => isTorn({ ...WHOLE, ...state } as SlotState, () => TEMPLATE_BYTES);
  expect(torn({})).toBe(false);
  for (const state of [
    { stamp: '' },
    { rawId: '' },
    { image: image(1) },
    { image: image(1), sizeStamp: '1' },
    { image: undefined },
  ] as const)
    expect(torn(state)).toBe(true);
  for (const state of [{ stamp: 'of another program' }, { kind: 'not-a-folder' }] as const)
    expect(torn(state)).toBe(false);
});

test('an image alone is unstamped, and a folder with nothing of ours is nobody’s', () => {
  const bare = { ...WHOLE, stamp: undefined, hasSidecars: false } as SlotState;
  expect([isUnstamped(bare), isForeignFolder(bare)]).toEqual([true, false]);
  const empty = { ...bare, image: undefined } as unknown as SlotState;
  expect([isUnstamped(empty), isForeignFolder(empty)]).toEqual([false, true]);
});

test('a stamp that nobody here can read is named', () => {
  expect(unknownFile(WHOLE)).toBeUndefined();
  expect(unknownFile({ ...WHOLE, stamp: 'sha1:abc' })).toBe('rootfs.ext4.sha256');
  expect(unknownFile({ ...WHOLE, sizeStamp: '64M' })).toBe('rootfs.ext4.size');
  expect(unknownFile({ ...WHOLE, sizeStamp: '' })).toBeUndefined();
  expect(unknownFile({ ...WHOLE, unsettled: 'yes' })).toBe('rootfs.ext4.unsettled');
  expect(unknownFile({ ...WHOLE, unsettled: '' })).toBeUndefined();
  expect(unknownFile({ ...WHOLE, rawId: null })).toBe('rootfs.ext4.id');
});

test('two looks saw the same slot unless its folder, its image or a stamp of it is another', () => {
  expect(isSameSlot(WHOLE, { ...WHOLE })).toBe(true);
  const others: Change[] = [
    { folder: identity(10, 3n) },
    { image: image(8192) },
    { stamp: 'b'.repeat(64) },
    { rawId: 'vm:1' },
    { sizeStamp: '8192' },
  ];
  for (const other of others) expect(isSameSlot(WHOLE, { ...WHOLE, ...other } as SlotState)).toBe(false);
});
