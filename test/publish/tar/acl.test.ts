// Access lists as tars have them in words: their bytes are what the kernel takes, or there are none.
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { parseAcl } from '../../../src/publish/tar/acl.js';
import { filesystemNamed } from '../../fixtures/each-filesystem.js';
import { Host } from '../../fixtures/host.js';
import { Random } from '../../fixtures/random.js';
import { lacks } from '../../fixtures/tools.js';

const NAMES = {
  users: new Map([['joe', 1234]]),
  groups: new Map([
    ['joe', 5],
    ['staff', 50],
  ]),
};
const BASE = 'user::rw-,group::r--,other::---';

const parse = (text: string) => parseAcl(text, NAMES);

/** Each entry as tag, permissions and id. */
function entries(acl: ReturnType<typeof parseAcl>): number[][] {
  expect(Buffer.isBuffer(acl)).toBe(true);
  const bytes = acl as Buffer;
  expect(bytes.readUInt32LE(0)).toBe(2);
  return Array.from({ length: (bytes.length - 4) / 8 }, (_, i) => [
    bytes.readUInt16LE(4 + 8 * i),
    bytes.readUInt16LE(6 + 8 * i),
    bytes.readUInt32LE(8 + 8 * i),
  ]);
}

const NO_ID = 0xffff_ffff;

test('entries are in the order that the kernel requires, whatever order they come in', () => {
  expect(
    entries(parse('other::--x,mask::rwx,group:staff:r-x,group::r--,user:joe:-w-,user:7:r--,user::rw-')),
  ).toEqual([
    [0x01, 6, NO_ID],
    [0x02, 4, 7],
    [0x02, 2, 1234],
    [0x04, 4, NO_ID],
    [0x08, 5, 50],
    [0x10, 7, NO_ID],
    [0x20, 1, NO_ID],
  ]);
});

test('words may be short, on lines of their own, with spaces, comments, and numbers as star adds them', () => {
  const plain = parse(`user:joe:r--,mask::r--,${BASE}`);
  expect(parse('u:joe:r--\nm::r--\nu::rw-\ng::r--\no::---\n')).toEqual(plain);
  expect(
    parse(` user:joe:r-- #effective:---\n# a comment\n\nmask::r--\n user::rw- , group::r--,other::---,`),
  ).toEqual(plain);
  // The number counts, where there is one: the name may be of another host.
  expect(parse(`user:nobody-here:r--:1234,mask::r--,${BASE}`)).toEqual(plain);
});

test('a name is looked up among users or among groups, and one that is unknown is told', () => {
  expect(entries(parse(`group:joe:r--,mask::r--,${BASE}`))).toContainEqual([0x08, 4, 5]);
  expect(parse(`user:staff:r--,mask::r--,${BASE}`)).toEqual({ unknownName: 'staff' });
  expect(parse(`group:jane:r--,mask::r--,${BASE}`)).toEqual({ unknownName: 'jane' });
  for (const name of ['constructor', '__proto__', '-1', '1.5', '0x7', ' '])
    expect(parse(`user:${name}:r--,mask::r--,${BASE}`), name).not.toBeInstanceOf(Buffer);
});

test('the largest id of all is nobody’s, and what is larger is no id', () => {
  expect(entries(parse(`user:4294967294:r--,mask::r--,${BASE}`))).toContainEqual([0x02, 4, 0xffff_fffe]);
  for (const id of ['4294967295', '4294967296', '99999999999999999999', '9'.repeat(400)]) {
    expect(parse(`user:${id}:r--,mask::r--,${BASE}`), id).toBeUndefined();
    expect(parse(`user:joe:r--:${id},mask::r--,${BASE}`), id).toBeUndefined();
  }
});

test.each([
  '',
  '\n,\n',
  'user::rw',
  'user::rw-x',
  'user::7',
  'user',
  'everyone::rw-,user::rw-,group::r--,other::---',
  'default:user::rw-',
  // What the kernel refuses.
  'user::rw-',
  'user::rw-,group::r--',
  'group::r--,other::---',
  `user:joe:r--,${BASE}`,
  `${BASE},user::rw-`,
  `${BASE},other::r--`,
  `mask:joe:r--,${BASE}`,
  `mask::r--,mask::r--,${BASE}`,
])('%j is no access list', (text) => {
  expect(parse(text)).toBeUndefined();
});

test('what comes of words by chance is what the kernel takes, byte for byte', async ({ skip }) => {
  const filesystem = filesystemNamed('XFS');
  const missing = filesystem.missing ?? lacks('setfattr');
  if (missing !== undefined) skip(missing);
  const { root } = await Host.in(filesystem.path ?? inject('scratch'));
  const random = new Random(11);
  const kinds = ['user:', 'user::', 'group::', 'group:7', 'user:joe', 'user:8', 'mask:', 'other:', 'user:9'];
  let taken = 0;
  for (let i = 0; i < 150; i++) {
    const permissions = () => ['r-x', 'rwx', '---', '-w-'][random.below(4)];
    const words = random.chance(0.6) ? ['user:', 'group:', 'other:', 'mask:'] : [];
    for (let more = random.below(3); more > 0; more--) words.push(random.pick(kinds));
    const text = words
      .map((word) => `${word}${word.split(':').length > 2 ? '' : ':'}${permissions()}`)
      .join(',');
    const acl = parse(text);
    if (!Buffer.isBuffer(acl)) continue;
    const path = join(root, `file${i}`);
    await writeFile(path, '');
    const hex = `0x${acl.toString('hex')}`;
    execFileSync('setfattr', ['-n', 'system.posix_acl_access', '-v', hex, path], { stdio: 'pipe' });
    taken++;
    // One that says no more than the mode is kept as the mode.
    const args = ['-d', '-m', 'posix_acl_access', '-e', 'hex', path];
    const told = execFileSync('getfattr', args, { encoding: 'utf8', stdio: 'pipe' });
    if (acl.length > 4 + 3 * 8) expect(told, text).toContain(hex);
  }
  expect(taken).toBeGreaterThan(30);
});
