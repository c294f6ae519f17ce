// What the tree of a tar has in the places where tars say a thing twice, or not at all.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { withTarTree } from '../../../src/publish/tar/tar-tree.js';
import type { Attribute, FileNode, FolderNode } from '../../../src/publish/tree/file-tree.js';
import { Host } from '../../fixtures/host.js';
import { rejection } from '../../fixtures/rejection.js';
import { type Member, makeTar } from '../../fixtures/tars.js';

const LIMITS = { maxFiles: 1000, maxDepth: 100 };

async function treeOf<T>(members: readonly Member[], work: (root: FolderNode) => T): Promise<T> {
  const path = join((await Host.in(inject('scratch'))).root, 'tar');
  await writeFile(path, makeTar(members));
  const reading = { source: 'the tar', limits: LIMITS, otherTimeNs: 0n, checkAborted() {} };
  return withTarTree(path, reading, async (root) => work(root));
}

/** The extended attributes of `file`. */
function attributesOf(...members: Member[]): Promise<readonly Attribute[]> {
  return treeOf(members, (root) => root.children.get('file')?.attributes ?? []);
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
  const bytes = acl(2, 1, 4, 32);
  const attributes = await attributesOf({
    path: 'file',
    pax: { 'SCHILY.xattr.system.posix_acl_access': bytes, 'SCHILY.xattr.user.x': 'x', ...pax },
  });
  expect(attributes.map(({ name }) => name).sort()).toEqual(['system.posix_acl_access', 'user.x']);
  const long = acl(2, 1, 2, 2, 4, 16, 32);
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

test('contents that come with a later name, as in cpio, are those of the file; other ones are refused', async () => {
  const link = {
    path: 'link',
    type: '1',
    target: 'file',
    contents: Buffer.from('later'),
    pax: { mtime: '1' },
  };
  const sizeOf = (file: Member) =>
    treeOf([file, link], ({ children }) => {
      expect(children.get('link')).toBe(children.get('file'));
      return (children.get('file') as FileNode).content.sizeBytes;
    });
  expect(await sizeOf({ path: 'file' })).toBe(5);
  expect(await sizeOf({ path: 'file', contents: Buffer.from('first') })).toBe(5);
  for (const file of [
    { path: 'file', contents: Buffer.from('longer') },
    { path: 'file', type: '2', target: 'x' },
  ]) {
    const { message } = await rejection(sizeOf(file), 'IMAGE_INVALID');
    expect(message).toMatch(/a hard link whose contents differ from its target, link/);
  }
});

/** In the kernel's form. */
function acl(version: number, ...tags: number[]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * tags.length);
  bytes.writeUInt32LE(version, 0);
  for (const [i, tag] of tags.entries()) bytes.writeUInt16LE(tag, 4 + 8 * i);
  return bytes;
}

test('what a container engine stores in the tree keeps the marks of layers', async () => {
  const layer = 'var/lib/docker/overlay2/abc/diff';
  const members: Member[] = [
    { path: `./${layer}/gone`, type: '3' },
    { path: `./${layer}/.wh.gone`, pax: { 'SCHILY.xattr.user.containers.override_stat': '0:0:0100755' } },
    {
      path: `./${layer}/opaque`,
      type: '5',
      pax: {
        'SCHILY.xattr.trusted.overlay.opaque': 'y',
        'SCHILY.acl.default': 'user::rwx,group::r-x,other::r-x',
      },
    },
  ];
  await treeOf(members, (root) => {
    const { children } = layer.split('/').reduce((at, name) => at.children.get(name) as FolderNode, root);
    expect(children.get('gone')).toMatchObject({ kind: 'character device', major: 0, minor: 0 });
    expect(children.get('.wh.gone')?.attributes).toMatchObject([{ name: 'user.containers.override_stat' }]);
    const names = children.get('opaque')?.attributes.map(({ name }) => name);
    expect(names?.sort()).toEqual(['system.posix_acl_default', 'trusted.overlay.opaque']);
  });
});

test('an access list in the form of the kernel is kept', async () => {
  const value = acl(2, 1, 2, 4, 16, 32);
  const attributes = await attributesOf({
    path: 'file',
    pax: { 'SCHILY.xattr.system.posix_acl_access': value },
  });
  expect(attributes).toEqual([{ name: 'system.posix_acl_access', value }]);
});

test.each<[what: string, words: RegExp, members: Member[]]>([
  ['without members', /holds no file/, []],
  [
    'with a whiteout of a container image',
    /whiteout of a container image, .*etc\/.wh.passwd/,
    [{ path: 'etc/.wh.passwd' }],
  ],
  ['with an opaque folder of a container image', /whiteout/, [{ path: 'etc/.wh..wh..opq' }]],
  [
    'with a real owner in an attribute',
    /file, which has its real owner.*user\.containers\.override_stat/,
    [{ path: 'file', pax: { 'SCHILY.xattr.user.containers.override_stat': '0:0:0100755' } }],
  ],
  [
    'with an access list of another version',
    /damaged access list at file/,
    [{ path: 'file', pax: { 'SCHILY.xattr.system.posix_acl_access': acl(1, 1, 4, 32) } }],
  ],
  [
    'with an access list without others',
    /damaged access list at file/,
    [
      {
        path: 'file',
        pax: { 'LIBARCHIVE.xattr.system.posix_acl_default': acl(2, 1, 4, 8).toString('base64') },
      },
    ],
  ],
  [
    'with a default access list of a file',
    /default access list at file, which is not a folder: create the tar again/,
    [{ path: 'file', pax: { 'SCHILY.xattr.system.posix_acl_default': acl(2, 1, 4, 32) } }],
  ],
  [
    'with a default access list of a file in words',
    /default access list at file, which is not a folder: create the tar again/,
    [{ path: 'file', pax: { 'SCHILY.acl.default': 'user::rw-,group::r--,other::---' } }],
  ],
  [
    'with an access list of a link',
    /access list at link, which is a symbolic link: create the tar again/,
    [
      {
        path: 'link',
        type: '2',
        target: 'x',
        pax: { 'SCHILY.xattr.system.posix_acl_access': acl(2, 1, 4, 32) },
      },
    ],
  ],
  ...['abc', Buffer.alloc(20), Buffer.from([...[1, 0, 0, 2], ...new Array(20).fill(0)])].map(
    (value): [string, RegExp, Member[]] => [
      `with a damaged capability of ${value.length} bytes`,
      /file with a damaged security\.capability: create the tar again/,
      [{ path: 'file', pax: { 'SCHILY.xattr.security.capability': value } }],
    ],
  ),
  ...['2', '3', '4', '6'].map((type): [string, RegExp, Member[]] => [
    `with a user's attribute of the type ${type}`,
    /file with the attribute user\.a, which only files and folders can have: create the tar again/,
    [{ path: 'file', type, target: 'x', device: [1, 3], pax: { 'SCHILY.xattr.user.a': 'x' } }],
  ]),
  [
    'with an attribute that is not base64',
    /file with a damaged extended attribute, "LIBARCHIVE\.xattr\.user\.a": create the tar again/,
    [{ path: 'file', pax: { 'LIBARCHIVE.xattr.user.a': '!!!' } }],
  ],
  [
    'with an attribute without a name',
    /file with a damaged extended attribute, "SCHILY\.xattr\.user\.": create the tar again/,
    [{ path: 'file', pax: { 'SCHILY.xattr.user.': 'x' } }],
  ],
  [
    'with NUL in the name of an attribute',
    /file with a damaged extended attribute.*create the tar again/,
    [{ path: 'file', pax: { 'SCHILY.xattr.user.a\0b': 'x' } }],
  ],
  [
    'with a damaged attribute for all files',
    /file with a damaged extended attribute, "LIBARCHIVE\.xattr\.user\.x"/,
    [{ path: 'g', type: 'g', contents: Buffer.from('31 LIBARCHIVE.xattr.user.x=!!!\n') }, { path: 'file' }],
  ],
  [
    'with a hard link to a later file',
    /a hard link, l, to file, which does not come before it: create the tar again/,
    [{ path: 'l', type: '1', target: 'file' }, { path: 'file' }],
  ],
  [
    'with a hard link to itself',
    /a hard link, l, to l, which .*: create the tar again/,
    [{ path: 'l', type: '1', target: 'l' }],
  ],
  [
    'with a member outside',
    /a member that leads out of its folder by "\.\.", etc\/\.\.\/a: create the tar again with tar -C/,
    [{ path: 'etc/../a' }],
  ],
  [
    'with a hard link to a file outside',
    /a hard link, l, that leads out.*, \.\.\/a: create/,
    [{ path: 'l', type: '1', target: '../a' }],
  ],
  [
    'with a name of 256 bytes',
    /does not allow, aaaa.*more than 255 bytes, so rename/,
    [{ path: '', pax: { path: 'a'.repeat(256) } }],
  ],
  ['with a member without a name', /without a name: create/, [{ path: '', contents: Buffer.from('x') }]],
  ['with a link to a name with NUL', /NUL, l/, [{ path: 'l', type: '2', pax: { linkpath: 'a\0b' } }]],
  ['with a link to nothing', /to nothing.*, l: remove the link/, [{ path: 'l', type: '2' }]],
  [
    'with a hard link to a name with NUL',
    /does not allow/,
    [{ path: 'l', type: '1', pax: { linkpath: 'a\0b' } }],
  ],
  [
    'with an attribute longer than Linux has',
    /ext4 cannot hold \/file of the tar.*user.a \(70000 bytes\)/,
    [{ path: 'file', pax: { 'SCHILY.xattr.user.a': Buffer.alloc(70_000, 'x') } }],
  ],
])('a tar %s is refused', async (_, words, members) => {
  expect((await rejection(attributesOf(...members), 'IMAGE_INVALID')).message).toMatch(words);
});

test('a socket that star wrote is a socket', async () => {
  const socket = { path: 'file', pax: { 'SCHILY.filetype': 'sock' } };
  const kindOf = (member: Member) => treeOf([member], ({ children }) => children.get('file')?.kind);
  expect(await kindOf(socket)).toBe('socket');
  expect(await kindOf({ ...socket, pax: { 'SCHILY.filetype': 'regular' } })).toBe('file');
  expect(await kindOf({ ...socket, contents: Buffer.from('x') })).toBe('file');
});

test('attributes are in base64 with and without its padding', async () => {
  const pax = {
    'LIBARCHIVE.xattr.user.a': 'eA==',
    'LIBARCHIVE.xattr.user.b': 'eA',
    'LIBARCHIVE.xattr.user.c': '',
  };
  const attributes = await attributesOf({ path: 'file', pax });
  expect(attributes.map(({ value }) => value.toString())).toEqual(['x', 'x', '']);
});

test('a file that is merely named like a whiteout is a file', async () => {
  expect(await attributesOf({ path: '.wh.y', contents: Buffer.from('white') }, { path: 'file' })).toEqual([]);
});

test('what a file system of the host keeps in attributes is left out', async () => {
  const ofTheHost = [
    ...['SGI_ACL_FILE', 'SGI_ACL_DEFAULT', 'gfid', 'gfid2path.1', 'pgfid.1', 'afr.dirty', 'ec.size'],
    ...['bit-rot.version', 'glusterfs.dht', 'overlay.origin', 'lov', 'lma', 'link', 'som', 'hsm', 'lustre.x'],
  ].map((name) => [`SCHILY.xattr.trusted.${name}`, 'x']);
  const pax = { ...Object.fromEntries(ofTheHost), 'SCHILY.xattr.trusted.links': 'y' };
  expect(await attributesOf({ path: 'file', pax })).toEqual([
    { name: 'trusted.links', value: Buffer.from('y') },
  ]);
});

test('each program escapes names of attributes in its own way', async () => {
  const attributes = await attributesOf({
    path: 'file',
    pax: {
      'SCHILY.xattr.user.a%41b': '1',
      'SCHILY.xattr.user.%3Dc%2541': '2',
      'LIBARCHIVE.xattr.user.d%41': Buffer.from('3').toString('base64'),
    },
  });
  expect(attributes.map(({ name, value }) => `${name}: ${value}`).sort()).toEqual([
    'user.=c%41: 2',
    'user.a%41b: 1',
    'user.dA: 3',
  ]);
});

test('an attribute for all files is decoded once', async () => {
  const record = ` LIBARCHIVE.xattr.user.x=${Buffer.from('same').toString('base64')}\n`;
  const global = { path: 'g', type: 'g', contents: Buffer.from(`${record.length + 2}${record}`) };
  const [a, b] = await treeOf(
    [global, { path: 'a' }, { path: 'b', pax: { 'SCHILY.xattr.user.y': 'own' } }],
    ({ children }) => ['a', 'b'].map((name) => children.get(name)?.attributes ?? []),
  );
  expect(a?.map(({ name }) => name)).toEqual(['user.x']);
  expect(b?.map(({ name }) => name)).toEqual(['user.x', 'user.y']);
  expect(a?.[0]).toBe(b?.[0]);
});

test('capabilities of both versions are kept, and the attributes of users on files and folders', async () => {
  const name = 'security.capability';
  for (const [version, bytes] of [
    [2, 20],
    [3, 24],
  ])
    for (const flags of [0, 1]) {
      const value = Buffer.alloc(bytes as number);
      value.set([flags, 0, 0, version as number]);
      expect(await attributesOf({ path: 'file', pax: { [`SCHILY.xattr.${name}`]: value } })).toEqual([
        { name, value },
      ]);
    }
  for (const member of [{ path: 'file' }, { path: 'file/', type: '5' }])
    expect(await attributesOf({ ...member, pax: { 'SCHILY.xattr.user.a': 'x' } })).toHaveLength(1);
});

test('an access list gives the mode that setxattr gives, whichever mode the program wrote', async () => {
  const inWords = 'user::rw-,user:1234:rw-,group::---,mask::rw-,other::---';
  const bytes = acl(2, 1, 2, 4, 16, 32);
  for (const [i, permissions] of [6, 6, 0, 6, 0].entries()) bytes.writeUInt16LE(permissions, 4 + 8 * i + 2);
  const modeOf = (member: Partial<Member>) =>
    treeOf([{ path: 'file', ...member }], (root) => root.children.get('file')?.mode);
  for (const mode of [0o600, 0o660, 0o4640]) {
    const expected = (mode & 0o7000) | 0o660;
    expect(await modeOf({ mode, pax: { 'SCHILY.acl.access': inWords } })).toBe(expected);
    expect(await modeOf({ mode, pax: { 'SCHILY.xattr.system.posix_acl_access': bytes } })).toBe(expected);
    expect(await modeOf({ mode, pax: { 'SCHILY.acl.access': 'user::rwx,group::r-x,other::--x' } })).toBe(
      (mode & 0o7000) | 0o751,
    );
  }
});
