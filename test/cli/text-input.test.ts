// Text from people and programs: decoded for certain, or refused.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { nameOfInput, readText } from '../../src/cli/text-input.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

async function textOf(bytes: Buffer): Promise<string> {
  const path = join((await Host.in(inject('scratch'))).root, 'text');
  await writeFile(path, bytes);
  return readText(path);
}

const big = (text: string) => Buffer.from(text, 'utf16le').swap16();

test.each(['', 'vm-1\n', 'größe €\r\n', '😀'])(
  '%j comes out of every encoding that a mark tells',
  async (text) => {
    for (const bytes of [
      Buffer.from(text),
      Buffer.from(`\ufeff${text}`),
      Buffer.from(`\ufeff${text}`, 'utf16le'),
      big(`\ufeff${text}`),
    ])
      expect(await textOf(bytes)).toBe(text);
  },
);

test.each<[string, Buffer]>([
  ['Latin-1', Buffer.from('größe', 'latin1')],
  ['UTF-16 without a mark', Buffer.from('vm', 'utf16le')],
  ['half of a character of UTF-8', Buffer.from('€').subarray(0, 2)],
  ['a character in more bytes than it needs', Buffer.from([0xc0, 0x80])],
  ['half of a pair in UTF-8', Buffer.from([0xed, 0xa0, 0x80])],
  ['half of a pair in UTF-16', Buffer.from('\ufeff\ud800', 'utf16le')],
  ['an odd number of bytes in UTF-16', Buffer.concat([Buffer.from('\ufeffa', 'utf16le'), Buffer.from([0])])],
  ['UTF-32', Buffer.from([0xff, 0xfe, 0, 0, 0x61, 0, 0, 0])],
  ['a NUL', Buffer.from('vm-1\0vm-2')],
  ['a file of zeros, as after a power cut', Buffer.alloc(4096)],
  ['a compressed file', Buffer.from([0x1f, 0x8b, 8, 0])],
])('%s is refused', async (_, bytes) => {
  const { message } = await rejection(textOf(bytes), 'INVALID_ARGUMENT');
  expect(message).toMatch(/\/text is not plain text/);
});

test('one mark is taken away, a second one is text', async () => {
  expect(await textOf(Buffer.from('\ufeff\ufeffa'))).toBe('\ufeffa');
  expect(await textOf(Buffer.from('a\ufeff'))).toBe('a\ufeff');
});

test('what cannot be read has the code of the system and its path', async () => {
  const { root } = await Host.in(inject('scratch'));
  await mkdir(join(root, 'folder'));
  for (const [name, code] of [
    ['missing', 'ENOENT'],
    ['folder', 'EISDIR'],
  ] as const) {
    const error = await rejection(readText(join(root, name)), code);
    expect(error).toMatchObject({ path: join(root, name), errno: expect.any(Number) });
    expect(error.message).toMatch(/^reading \S+: [a-z ]+$/);
  }
  expect(nameOfInput('-')).toBe('standard input');
  expect(nameOfInput('./-')).toBe('./-');
});

test('what has no end is refused before it fills the memory', async () => {
  const { message } = await rejection(readText('/dev/zero'), 'INVALID_ARGUMENT');
  expect(message).toMatch(/^\/dev\/zero has more than \d+ bytes: is it a text file\?$/);
});
