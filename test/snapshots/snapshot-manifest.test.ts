// The manifest of a snapshot: what is written is read again, and nothing else is.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  fitInManifest,
  formatManifest,
  isPlainName,
  parseManifest,
  SNAPSHOT_MANIFEST_BYTES_LIMIT,
  type SnapshotRecord,
} from '../../src/snapshots/snapshot-manifest.js';
import { isWellFormed } from '../../src/system/arguments.js';

const SHA256 = 'a'.repeat(64);
const RECORD: SnapshotRecord = {
  vmId: 'vm/1',
  stack: 'debian',
  sourceSha256: SHA256,
  sizeStamp: 8192,
  createdAt: '2026-01-01T00:00:00.000Z',
  files: [
    { name: 'rootfs.ext4', sizeBytes: 8192, sha256: SHA256 },
    { name: 'memory', sizeBytes: 0, sha256: 'b'.repeat(64) },
  ],
};

test('what is written is read again, whatever the ids and names', () => {
  const names = fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }).filter(isPlainName);
  const digest = fc.stringMatching(/^[0-9a-f]{64}$/);
  const record = fc.record({
    vmId: fc.string({ unit: 'binary' }).filter(isWellFormed),
    stack: fc.option(fc.string({ unit: 'grapheme' }), { nil: undefined }),
    sourceSha256: digest,
    sizeStamp: fc.option(fc.maxSafeNat(), { nil: undefined }),
    createdAt: fc
      .date({ min: new Date(0), max: new Date('2999-01-01'), noInvalidDate: true })
      .map((date) => date.toISOString()),
    files: fc.uniqueArray(fc.record({ name: names, sizeBytes: fc.maxSafeNat(), sha256: digest }), {
      minLength: 1,
      selector: ({ name }) => name,
    }),
  });
  fc.assert(
    fc.property(record, (drawn) => {
      const length = drawn.files[0]?.sizeBytes ?? 0;
      const sizeStamp = drawn.sizeStamp && length > 0 ? 1 + (drawn.sizeStamp % length) : undefined;
      const one = { ...drawn, sizeStamp };
      expect(parseManifest(formatManifest(one))).toEqual(one);
    }),
  );
});

test('names that fit in, however they are written, make a manifest that is read again', () => {
  const name = '"\u2028';
  const fits = (count: number) =>
    fitInManifest(Array.from({ length: count }, (_, i) => `${i}${name.repeat(30)}`));
  let count = 1;
  while (fits(count + 1)) count++;
  const files = Array.from({ length: count }, (_, i) => ({
    name: `${i}${name.repeat(30)}`,
    sizeBytes: Number.MAX_SAFE_INTEGER,
    sha256: SHA256,
  }));
  const text = formatManifest({ ...RECORD, vmId: '\u0001'.repeat(255), stack: '"'.repeat(255), files });
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(SNAPSHOT_MANIFEST_BYTES_LIMIT);
  expect(parseManifest(text)?.files).toHaveLength(count);
});

test('a manifest that is cut off anywhere, or has a line too many, is none', () => {
  const text = formatManifest(RECORD);
  expect(parseManifest(text)).toEqual(RECORD);
  for (let length = 0; length < text.length; length++)
    expect(parseManifest(text.slice(0, length))).toBeUndefined();
  expect(parseManifest(`${text}${SHA256}  of somebody\n`)).toBeUndefined();
});

test.each([
  ['a size that no file has', { sizes: { 'rootfs.ext4': -1, memory: 0 } }],
  ['a file without a size', { sizes: { memory: 0, other: 1 } }],
  ['a size stamp beyond the disk', { sizeStamp: 2 ** 50 }],
  ['a size stamp below zero', { sizeStamp: -5 }],
  ['another version', { version: 2 }],
  ['a digest in upper case', { sourceSha256: SHA256.toUpperCase() }],
  ['no time', { createdAt: 'yesterday' }],
  ['an id that is no text', { vmId: 1 }],
])('a manifest with %s is none', (_what, change) => {
  const [head = '', ...lines] = formatManifest(RECORD).split('\n');
  const start = head.indexOf('{');
  const changed = { ...JSON.parse(head.slice(start)), ...change };
  expect(
    parseManifest([head.slice(0, start) + JSON.stringify(changed), ...lines].join('\n')),
  ).toBeUndefined();
});

test('names that sha256sum would write in another way, that hide or that lead elsewhere are not plain', () => {
  for (const name of [
    '',
    '.',
    '..',
    '.hidden',
    'a/b',
    'a\\b',
    'a\nb',
    '\ud800',
    'a\u007f',
    '\u0085a',
    'a'.repeat(256),
    'ä'.repeat(128),
  ])
    expect([name, isPlainName(name)]).toEqual([name, false]);
  for (const name of ['rootfs.ext4', 'memory of vm', 'ä', 'a'.repeat(255), `a${'ä'.repeat(127)}`])
    expect(isPlainName(name)).toBe(true);
});
