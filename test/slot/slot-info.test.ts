// A slot as its own files describe it, whatever state they are in.
import { expect, test } from 'vitest';
import type { SlotFacts } from '../../src/addon/native.js';
import type { StacksByDigest } from '../../src/catalog/stacks-by-digest.js';
import { slotInfo, templateOf } from '../../src/slot/slot-info.js';
import { Random } from '../fixtures/random.js';

const DIGEST = 'a'.repeat(64);
const image = (sizeBytes: number, regular = true) => ({ regular, identity: { sizeBytes } });
const WHOLE: SlotFacts = {
  kind: 'folder',
  hasSidecars: true,
  image: image(4096),
  stamp: `${DIGEST}\n`,
  createdAtMs: 5,
  sizeStamp: undefined,
  newSizeStamp: undefined,
  rawId: undefined,
  stack: undefined,
  unsettled: undefined,
};
const KNOWN = { firstStack: 'debian', sizeBytes: 4096 };
const UNKNOWN = { firstStack: undefined, sizeBytes: undefined };

type Change = { readonly [Key in keyof SlotFacts]?: SlotFacts[Key] | undefined };
const facts = (change: Change) => ({ ...WHOLE, ...change }) as SlotFacts;
const info = (change: Change, template: typeof KNOWN | typeof UNKNOWN = KNOWN) =>
  slotInfo('/clones', 'vm_1', facts(change), template);

test('a whole slot is described in full', () => {
  expect(info({})).toEqual({
    vmId: 'vm_1',
    rawId: 'vm_1',
    path: '/clones/vm_1/rootfs.ext4',
    health: 'whole',
    stack: 'debian',
    sourceSha256: DIGEST,
    sizeBytes: 4096,
    grown: false,
    createdAt: new Date(5),
  });
  expect(info({ rawId: 'vm:1', stack: 'other', sizeStamp: '8192', image: image(8192) })).toMatchObject({
    rawId: 'vm:1',
    stack: 'other',
    health: 'whole',
    grown: true,
    sizeBytes: 8192,
  });
});

test.each<[string, Change, string | undefined]>([
  ['is not there', { kind: 'absent' }, undefined],
  ['is a file', { kind: 'not-a-folder' }, undefined],
  ['holds nothing of ours', { image: undefined, hasSidecars: false, stamp: undefined }, undefined],
  ['has an image alone', { hasSidecars: false, stamp: undefined }, 'unstamped'],
  ['has a stamp of another program', { stamp: 'md5:1' }, 'unknown'],
  ['has a stamp that is no file', { stamp: null }, 'unknown'],
  ['has a size that is none', { sizeStamp: '4 KiB' }, 'unknown'],
  ['has a size of 17 digits', { sizeStamp: '1'.repeat(17) }, 'unknown'],
  ['has a new size that is no file', { newSizeStamp: null }, 'unknown'],
  ['has an empty stamp', { stamp: '' }, 'torn'],
  ['has a stamp of zeros', { stamp: '\0'.repeat(64) }, 'torn'],
  ['has an empty size', { sizeStamp: '\n' }, 'torn'],
  ['has no image', { image: undefined }, 'torn'],
  ['has a link or a folder for an image', { image: image(4096, false) }, 'unknown'],
  ['is longer than its template, without a size', { image: image(8192) }, 'unknown'],
  ['is being grown', { image: image(8192), newSizeStamp: '8192' }, 'whole'],
  ['is shorter than its template', { image: image(4095) }, 'torn'],
  ['is shorter than its size', { sizeStamp: '8192' }, 'torn'],
  ['is as short as its size, and shorter than its template', { sizeStamp: '1', image: image(1) }, 'torn'],
  ['has an empty raw id', { rawId: '' }, 'torn'],
  ['has a raw id that is no file', { rawId: null }, 'unknown'],
  ['has a mark that is no boot’s id', { unsettled: 'yes' }, 'unknown'],
  ['was copied before the machine went down', { unsettled: '00000000-0000-4000-8000-000000000000' }, 'torn'],
])('a slot that %s is %s', (_, change, health) => {
  expect(info(change)?.health).toBe(health);
});

test('where the template is not known, only an empty image is too short', () => {
  expect(info({ image: image(1) }, UNKNOWN)).toMatchObject({ health: 'whole', stack: undefined });
  expect(info({ image: image(0) }, UNKNOWN)?.health).toBe('torn');
  expect(info({ image: image(0), sizeStamp: '0' }, UNKNOWN)?.health).toBe('torn');
});

test.each([8.64e15, -8.64e15])(
  'a stamp whose time no Date can hold has the nearest that one can: %d',
  (limit) => {
    expect(info({ createdAtMs: 1000 * limit })?.createdAt.getTime()).toBe(limit);
  },
);

test('whatever is in its files, it is described without a failure', () => {
  const random = new Random(151);
  const texts = [
    undefined,
    null,
    '',
    '\0',
    '\n',
    DIGEST,
    DIGEST.toUpperCase(),
    '1',
    '-1',
    '1e3',
    'x',
    '9'.repeat(16),
  ];
  for (let i = 0; i < 3000; i++) {
    const text = () => random.pick(texts);
    const change = {
      kind: random.pick(['absent', 'folder', 'folder', 'not-a-folder'] as const),
      hasSidecars: random.chance(0.7),
      image: random.pick([undefined, image(0), image(4096), image(2 ** 40), image(4096, false)]),
      stamp: text(),
      sizeStamp: text(),
      newSizeStamp: text(),
      rawId: text(),
      stack: text(),
      unsettled: text(),
    };
    const described = info(change, random.pick([KNOWN, UNKNOWN]));
    if (described === undefined) continue;
    expect(described.rawId).not.toBe('');
    expect(described.sourceSha256 === undefined || /^[0-9a-f]{64}$/.test(described.sourceSha256)).toBe(true);
    if (described.health === 'whole') {
      expect(described.sourceSha256).toBe(DIGEST);
      expect(described.sizeBytes).toBeGreaterThan(0);
    }
  }
});

test('the template of a slot is looked up by its stamp, and by the stack that it names', async () => {
  const asked: unknown[] = [];
  const known = {
    stacks: { firstWith: async () => 'first' } as unknown as StacksByDigest,
    templateBytes: async (...of: [string, string | undefined]) => {
      asked.push(of);
      return 4096;
    },
  };
  expect(await templateOf(facts({}), known)).toEqual({ firstStack: 'first', sizeBytes: 4096 });
  await templateOf(facts({ stack: 'own' }), known);
  await templateOf(facts({ stack: '' }), known);
  expect(asked).toEqual([
    [DIGEST, 'first'],
    [DIGEST, 'own'],
    [DIGEST, 'first'],
  ]);
  for (const stamp of [undefined, null, '', 'x'])
    expect(await templateOf(facts({ stamp }), known)).toEqual(UNKNOWN);
  expect(asked).toHaveLength(3);
});
