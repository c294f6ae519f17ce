// What the tree of a tar has in the places where tars say a thing twice, or not at all.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { withTarTree } from '../../../src/publish/tar/tar-tree.js';
import type { Attribute } from '../../../src/publish/tree/file-tree.js';
import { Host } from '../../fixtures/host.js';
import { rejection } from '../../fixtures/rejection.js';
import { type Member, makeTar } from '../../fixtures/tars.js';

const LIMITS = { maxFiles: 1000, maxDepth: 100 };

/** The extended attributes of `file`. */
async function attributesOf(...members: Member[]): Promise<readonly Attribute[]> {
  const path = join((await Host.in(inject('scratch'))).root, 'tar');
  await writeFile(path, makeTar(members));
  const reading = { source: 'the tar', limits: LIMITS, otherTimeNs: 0n, checkAborted() {} };
  return withTarTree(path, reading, async (root) => root.children.get('file')?.attributes ?? []);
}

const passwd = (...lines: string[]): Member => ({
  path: 'etc/passwd',
  contents: Buffer.from(lines.join('\n')),
});

const allowed = (name: string): Member => ({
  path: 'file',
  pax: { 'SCHILY.acl.access': `user::rw-,user:${name}:r--,group::r--,mask::r--,other::---` },
});

const idOf = ([attribute]: readonly Attribute[]) => attribute?.value.readUInt32LE(4 + 8 + 4);

test('an access list that is there in words and in bytes is one attribute: the words count', async () => {
  const { pax } = allowed('7');
  const bytes = Buffer.from('0200000001000600ffffffff', 'hex');
  const attributes = await attributesOf({
    path: 'file',
    pax: { 'SCHILY.xattr.system.posix_acl_access': bytes, 'SCHILY.xattr.user.x': 'x', ...pax },
  });
  expect(attributes.map(({ name }) => name).sort()).toEqual(['system.posix_acl_access', 'user.x']);
  const long = Buffer.from(`02000000${'01000600ffffffff'.repeat(5)}`, 'hex');
  const both = await attributesOf({
    path: 'file',
    pax: { 'SCHILY.xattr.system.posix_acl_access': long, ...pax },
  });
  expect(both).toHaveLength(1);
  expect(idOf(both)).toBe(7);
});

test('a name in an access list is that of the tar’s own users: the first line with a number', async () => {
  const users = passwd(
    'joe:x:1234:1:::',
    'joe:x:5:1:::',
    'void:x::1:::',
    'none',
    'neg:x:-1:1:::',
    'void:x:77:1:::',
  );
  expect(idOf(await attributesOf(users, allowed('joe')))).toBe(1234);
  expect(idOf(await attributesOf(users, allowed('void')))).toBe(77);
  for (const name of ['none', 'neg', 'jane', ''.padEnd(3, 'x')]) {
    const { message } = await rejection(attributesOf(users, allowed(name)), 'IMAGE_INVALID');
    expect(message).toContain(`"${name}"`);
  }
  await rejection(attributesOf(passwd('big:x:4294967295:1:::'), allowed('big')), 'IMAGE_INVALID');
  await rejection(attributesOf(allowed('joe')), 'IMAGE_INVALID');
});

test('of several values for one attribute the last counts, whichever program’s way it is written in', async () => {
  expect(
    await attributesOf({
      path: 'file',
      pax: {
        'SCHILY.xattr.user.a%3Db': 'first',
        'LIBARCHIVE.xattr.user.a%3Db': Buffer.from('second').toString('base64'),
        'SCHILY.xattr.security.selinux': 'host’s',
        'SCHILY.xattr.btrfs.compression': 'zstd',
      },
    }),
  ).toEqual([{ name: 'user.a=b', value: Buffer.from('second') }]);
});
