// One header of a tar, of any dialect, by bytes that GNU tar writes and by bytes that nobody ought to.
import { execFileSync } from 'node:child_process';
import { mkdir, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { isZeroBlock } from '../../../src/image/zero-block.js';
import { looksLikeTar, parseHeader, parseMoreSparse } from '../../../src/publish/tar/header.js';
import { Host } from '../../fixtures/host.js';
import { pattern } from '../../fixtures/images.js';
import { Random } from '../../fixtures/random.js';
import { type Member, makeTar } from '../../fixtures/tars.js';
import { lacks } from '../../fixtures/tools.js';

function headerOf(member: Member): Buffer {
  return Buffer.from(makeTar([member]).subarray(0, 512));
}

/** With fields overwritten, and a checksum that is right again: of unsigned bytes, or of signed ones. */
function changed(fields: Readonly<Record<number, Buffer | string>>, signed = false): Buffer {
  const block = headerOf({ path: 'file', contents: Buffer.from('x') });
  for (const [at, bytes] of Object.entries(fields))
    Buffer.from(bytes as string, 'latin1').copy(block, Number(at));
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + (signed && byte > 127 ? byte - 256 : byte), 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

function base256(value: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = length - 1, rest = value; i >= 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn);
  bytes[0] = (bytes[0] as number) | 0x80;
  return bytes;
}

test('a header of each of GNU tar’s dialects says what the file is', async ({ skip }) => {
  const missing = lacks('tar');
  if (missing !== undefined) skip(missing);
  const { root } = await Host.in(inject('scratch'));
  const folder = join(root, 'in');
  await mkdir(folder);
  await writeFile(join(folder, 'file'), 'twelve bytes', { mode: 0o640 });
  await utimes(join(folder, 'file'), 1_500_000_000, 1_500_000_000);
  await symlink('file', join(folder, 'link'));
  for (const format of ['v7', 'ustar', 'oldgnu', 'gnu']) {
    const args = [`--format=${format}`, '--owner=:1000', '--group=:1001', '-C', folder, '-cf', '-'];
    const tar = execFileSync('tar', [...args, 'file', 'link']);
    const header = parseHeader(tar.subarray(0, 512));
    expect(header, format).toMatchObject({
      type: expect.stringMatching(/^[0\0]$/),
      mode: 0o640,
      uid: 1000,
      gid: 1001,
      sizeBytes: 12,
      mtimeNs: 1_500_000_000_000_000_000n,
      major: 0,
      minor: 0,
      sparse: undefined,
    });
    expect(header?.path.toString()).toBe('file');
    expect(looksLikeTar(tar.subarray(0, 512))).toBe(true);
    const link = parseHeader(tar.subarray(1024, 1536));
    expect([link?.type, link?.sizeBytes, link?.linkTarget.toString()]).toEqual(['2', 0, 'file']);
  }
});

test('any one byte changed, and it is no header', () => {
  const block = headerOf({ path: 'etc/passwd', contents: Buffer.from('text') });
  expect(parseHeader(block)).toBeDefined();
  for (let at = 0; at < 512; at++) {
    if (at >= 148 && at < 156) continue;
    for (const change of [1, 0x80, 0xff]) {
      const harmed = Buffer.from(block);
      harmed[at] = ((harmed[at] as number) + change) & 0xff;
      expect(parseHeader(harmed), `byte ${at}`).toBeUndefined();
      expect(looksLikeTar(harmed)).toBe(false);
    }
  }
});

test('chance bytes are no header, nor are zeros', () => {
  for (let seed = 1; seed <= 500; seed++) expect(parseHeader(pattern(512, seed))).toBeUndefined();
  expect(isZeroBlock(Buffer.alloc(512))).toBe(true);
  expect(isZeroBlock(Buffer.concat([Buffer.alloc(511), Buffer.from([1])]))).toBe(false);
  expect(parseHeader(Buffer.alloc(512))).toBeUndefined();
  expect(looksLikeTar(Buffer.alloc(512))).toBe(false);
  expect(looksLikeTar(headerOf({ path: 'a' }).subarray(0, 511))).toBe(false);
  expect(looksLikeTar(Buffer.alloc(0))).toBe(false);
  // A header without a name is one, but no file begins with it.
  const nameless = changed({ 0: Buffer.alloc(4) });
  expect(parseHeader(nameless)?.path.length).toBe(0);
  expect(looksLikeTar(nameless)).toBe(false);
});

test('numbers too large for octal digits, or negative, are read from bytes', () => {
  const random = new Random(3);
  for (let i = 0; i < 200; i++) {
    const uid = BigInt(random.below(2 ** 31));
    const sizeBytes = BigInt(random.below(2 ** 26)) * 2n ** 26n + BigInt(random.below(2 ** 26));
    const mtime = BigInt(random.below(2 ** 40)) - 2n ** 39n;
    const block = changed({
      108: base256(uid, 8),
      124: base256(sizeBytes, 12),
      136: base256(mtime, 12),
    });
    expect(parseHeader(block)).toMatchObject({
      uid: Number(uid),
      sizeBytes: Number(sizeBytes),
      mtimeNs: mtime * 1_000_000_000n,
    });
  }
  expect(parseHeader(changed({ 124: base256(-1n, 12) }))?.sizeBytes).toBe(-1);
});

test.each([
  ['spaces before and after', '     644 ', 0o644],
  ['all of the field', '01234567', 0o1234567],
  ['what is behind a zero', '12\x00gibe', 0o12],
  ['an empty field', '\0\0\0\0\0\0\0\0', 0],
  ['a sign', '-0000012', -0o12],
])('octal digits are read with %s', (_, digits, value) => {
  expect(parseHeader(changed({ 108: digits }))?.uid).toBe(value);
});

test.each(['00000009', 'abcdefg\0', '0x10\0\0\0\0', '1 2\0\0\0\0\0', '--1\0\0\0\0\0', '1.5\0\0\0\0\0'])(
  'the digits %j are no number, and a time of those is no header',
  (digits) => {
    expect(parseHeader(changed({ 108: digits }))?.uid).toBeNaN();
    expect(parseHeader(changed({ 124: `${digits}\0\0\0\0` }))?.sizeBytes).toBeNaN();
    expect(parseHeader(changed({ 136: `${digits}\0\0\0\0` }))).toBeUndefined();
    expect(parseHeader(changed({ 100: digits }))?.mode).toBeNaN();
  },
);

test('only permission bits of the mode are taken, and device numbers only where the dialect has them', () => {
  expect(parseHeader(changed({ 100: '0177777\0' }))?.mode).toBe(0o7777);
  const device = { 329: '0000010\0', 337: '0000020\0' };
  expect(parseHeader(changed(device))).toMatchObject({ major: 8, minor: 16 });
  expect(parseHeader(changed({ ...device, 257: 'ustar  \0' }))).toMatchObject({ major: 8, minor: 16 });
  expect(parseHeader(changed({ ...device, 257: '\0\0\0\0\0\0\0\0' }))).toMatchObject({ major: 0, minor: 0 });
});

test('a long name has its beginning elsewhere in POSIX tars alone', () => {
  const name = 'n'.repeat(100);
  const prefix = 'p'.repeat(155);
  expect(parseHeader(changed({ 0: name, 345: prefix }))?.path.toString()).toBe(`${prefix}/${name}`);
  expect(parseHeader(changed({ 0: name, 345: prefix, 257: 'ustar  \0' }))?.path.toString()).toBe(name);
  expect(parseHeader(changed({ 157: 't'.repeat(100) }))?.linkTarget.length).toBe(100);
  // Names are bytes.
  expect(parseHeader(changed({ 0: '\xff\xfe\0\0' }))?.path).toEqual(Buffer.from([0xff, 0xfe]));
});

test('old programs summed signed bytes', () => {
  expect(parseHeader(changed({ 0: 'caf\xe9' }, true))?.path).toEqual(Buffer.from('caf\xe9', 'latin1'));
});

test('the map of a sparse file goes on to its first empty part', () => {
  const part = (at: number, length: number) =>
    `${at.toString(8).padStart(11, '0')}\0${length.toString(8).padStart(11, '0')}\0`;
  const four = [part(0, 512), part(1024, 512), part(4096, 0), part(8192, 1)];
  const parts = [
    { at: 0, length: 512 },
    { at: 1024, length: 512 },
    { at: 4096, length: 0 },
    { at: 8192, length: 1 },
  ];
  const size = { 483: '00000020001\0' };
  expect(parseHeader(changed({ 156: 'S', 386: four.join(''), ...size }))?.sparse).toEqual({
    parts,
    hasMore: false,
    realBytes: 8193,
  });
  expect(
    parseHeader(changed({ 156: 'S', 386: `${four[0]}${four[1]}`, 482: '\x01', ...size }))?.sparse,
  ).toEqual({
    parts: parts.slice(0, 2),
    hasMore: true,
    realBytes: 8193,
  });
  expect(parseHeader(changed({ 156: '0', 386: four.join('') }))?.sparse).toBeUndefined();
  const more = Buffer.alloc(512);
  more.write(Array.from({ length: 21 }, (_, i) => part(i * 1024, 512)).join(''), 0, 'latin1');
  expect(parseMoreSparse(more)).toMatchObject({ hasMore: false, parts: { length: 21 } });
  more[504] = 1;
  more[24] = 0;
  expect(parseMoreSparse(more)).toEqual({ hasMore: true, parts: [{ at: 0, length: 512 }] });
});
