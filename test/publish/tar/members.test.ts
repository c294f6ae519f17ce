import { execFileSync } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { readMembers, type TarMember } from '../../../src/publish/tar/members.js';
import { TarDamaged } from '../../../src/publish/tar/tar-damaged.js';
import { Host, openFileOf } from '../../fixtures/host.js';
import { MiB, pattern } from '../../fixtures/images.js';
import { Random } from '../../fixtures/random.js';
import { type Member, makeTar } from '../../fixtures/tars.js';

async function membersOf(
  tar: Buffer,
  onOddEnd?: (why: string, isCutOff: boolean) => void,
): Promise<TarMember[]> {
  const members: TarMember[] = [];
  const watch = onOddEnd === undefined ? {} : { onOddEnd };
  for await (const member of readMembers(await openFileOf(tar), tar.length, watch)) members.push(member);
  return members;
}

const only = async (...members: Member[]) => (await membersOf(makeTar(members)))[0] as TarMember;

/** Told within seconds: a hostile tar must not hold the process. */
async function damaged(members: readonly Member[], words = /./): Promise<void> {
  const tar = makeTar(members);
  const started = performance.now();
  const error = await membersOf(tar).then(
    (read) => expect.fail(`read ${read.map(({ path, sizeBytes }) => `${path} of ${sizeBytes} bytes`)}`),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(TarDamaged);
  expect((error as Error).message).toMatch(words);
  expect(performance.now() - started).toBeLessThan(10_000);
}

test('a header that was lost is told, and so is what comes behind the end', async () => {
  const [a, b] = [makeTar([{ path: 'a' }, { path: 'b' }]), makeTar([{ path: 'c' }])];
  const refused = async (tar: Buffer) => (await membersOf(tar).catch((error: Error) => error)) as Error;
  const lost = Buffer.from(a).fill(0, 0, 512);
  expect((await refused(lost)).message).toMatch(/zeros instead of a file header before byte 512/);
  expect((await refused(Buffer.concat([a, Buffer.alloc(10_240), b]))).message).toMatch(
    /byte 12288.*--concatenate/,
  );
  const told: string[] = [];
  const odd = Buffer.concat([a, Buffer.alloc(5000, 'x')]);
  expect(await membersOf(odd, (why) => told.push(why))).toHaveLength(2);
  expect(told).toEqual([expect.stringMatching(/more behind its end, at byte 2048/)]);
  // As programs end a tar: one block, two, or up to a whole record, and a part of one.
  for (const zeros of [-512, 0, 8192, 8192 + 100])
    expect(
      await membersOf(zeros < 0 ? a.subarray(0, zeros) : Buffer.concat([a, Buffer.alloc(zeros)]), (why) =>
        told.push(why),
      ),
    ).toHaveLength(2);
  expect(told).toHaveLength(1);
});

test('many sparse files together have no more parts than one may have', async () => {
  const map = Buffer.from(Array.from({ length: 300_000 }, (_, i) => `${2 * i},1`).join(','));
  const pax = { 'GNU.sparse.map': map, 'GNU.sparse.size': '1000000' };
  const contents = Buffer.alloc(300_000);
  const member = (path: string) => ({ path, pax, contents });
  await damaged(['a', 'b', 'c', 'd'].map(member), /1000000 parts/);
  const numbers = { 'GNU.sparse.map': Buffer.alloc(8 * MiB, '1,'), 'GNU.sparse.size': '1' };
  await damaged([{ path: 'a', pax: numbers }], /parts/);
});

/** Its bytes, by its segments. */
function contentsOf(tar: Buffer, { sizeBytes, segments }: TarMember): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (const { at, length, from } of segments) tar.copy(bytes, at, from, from + length);
  return bytes;
}

test('whatever is packed comes out again, in order and byte for byte', async () => {
  const random = new Random(5);
  for (let round = 0; round < 20; round++) {
    const packed = Array.from({ length: random.below(30) }, (_, i) => ({
      path: `folder/${i}`,
      contents: pattern(random.pick([0, 1, 511, 512, 513, 5000, 200_000]), i + 1),
      ...(random.chance(0.3) ? { pax: { path: `long/${'x'.repeat(random.below(300))}${i}` } } : {}),
    }));
    const tar = makeTar(packed);
    const read = await membersOf(tar);
    expect(read.map(({ path }) => path.toString())).toEqual(
      packed.map(({ path, pax }) => (pax as { path: string } | undefined)?.path ?? path),
    );
    read.forEach((member, i) => {
      expect(contentsOf(tar, member).equals(packed[i]?.contents as Buffer)).toBe(true);
    });
  }
});

test('an empty pax value is as if there were none, and one that is not a number is damage', async () => {
  const pax = { path: '', linkpath: '', uid: '', mtime: '', size: '' };
  const [member] = await membersOf(makeTar([{ path: 'etc/shadow', contents: Buffer.from('x'), pax }]));
  expect(member).toMatchObject({ sizeBytes: 1, uid: 0 });
  expect(member?.path.toString()).toBe('etc/shadow');
  for (const uid of [' ', '0x10', '1e3', 'root'])
    await damaged([{ path: 'a', pax: { uid } }], /a with the uid .*: create/);
  for (const mtime of ['1.5e9', ' 1', '+1', '1,5', '.5'])
    await damaged([{ path: 'a', pax: { mtime } }], /a with the time .*: create/);
  await damaged([{ path: 'a', pax: { size: '-1' } }], /a with a size that no file has: create/);
});

test('owners and devices beyond what Linux has are refused', async () => {
  for (const id of [`${2 ** 32 - 1}`, `${2 ** 32}`, '-2', '9'.repeat(400)])
    for (const key of ['uid', 'gid'])
      await damaged([{ path: 'a', pax: { [key]: id } }], /a with the owner .*: make the tar .*--owner/);
  for (const type of ['3', '4'])
    for (const device of [[4096, 0] as const, [8, 2 ** 20] as const])
      await damaged([{ path: 'a', type, device }], /a with the device numbers .*: leave it out/);
  await only({ path: 'a', device: [4096, 0], owner: [2 ** 21 - 1, 0], pax: { gid: `${2 ** 32 - 2}` } });
});

test('names and links beyond what Linux has are refused before they are taken apart', async () => {
  const long = './'.repeat(MiB);
  await damaged([{ path: 'a', pax: { path: long } }], /name or a link/);
  await damaged([{ path: 'a', type: '2', pax: { linkpath: 'x'.repeat(4096) } }], /name or a link/);
});

test('a header for a file that does not come is told, one for all files or with a label is not', async () => {
  const global = { path: 'g', type: 'g', contents: Buffer.from('9 uid=10\n') };
  const label = { path: 'label', type: 'V' };
  const name = { path: 'x', contents: Buffer.from('a\0') };
  expect(await membersOf(makeTar([{ path: 'a' }, global, label]))).toHaveLength(1);
  for (const type of ['L', 'K', 'x']) {
    const last = type === 'x' ? { ...global, type } : { ...name, type };
    await damaged([{ path: 'a' }, last], /header at its end for a file that is not there/);
    await damaged([last, global], /header at its end for a file that is not there/);
    const whole = makeTar([{ path: 'a' }, last]);
    await expect(membersOf(whole.subarray(0, -1024))).rejects.toThrow(TarDamaged);
  }
});

test('a tar may end without a mark, which is told, but not within a member', async () => {
  const tar = makeTar([{ path: 'a', contents: pattern(1000) }, { path: 'b' }]);
  const ends: number[] = [];
  for (let length = 0; length <= tar.length; length += 256) {
    let unmarked = false;
    const read = await membersOf(tar.subarray(0, length), () => {
      unmarked = true;
    }).catch((error: unknown) => {
      expect(error, `${length} bytes`).toBeInstanceOf(TarDamaged);
    });
    if (read !== undefined && unmarked) ends.push(length);
  }
  expect(ends).toEqual([1536, 2048]);
});

test('records of pax are of the next member, or of all that follow; the last of a key counts', async () => {
  const global = (pax: Record<string, string>): Member => {
    const records = Object.entries(pax).map(([key, value]) => {
      const rest = ` ${key}=${value}\n`;
      return `${rest.length + 2}${rest}`;
    });
    return { path: 'global', type: 'g', contents: Buffer.from(records.join('')) };
  };
  const [first, second, third] = await membersOf(
    makeTar([
      global({ uid: '1000', gid: '55' }),
      { path: 'a', pax: { uid: '7' } },
      global({ uid: '2000' }),
      { path: 'b' },
      { path: 'c', pax: { mtime: '1.5', linkpath: 'x' } },
    ]),
  );
  expect([first?.uid, first?.gid]).toEqual([7, 55]);
  expect([second?.uid, second?.gid]).toEqual([2000, 55]);
  expect([third?.uid, third?.mtimeNs, third?.linkTarget.toString()]).toEqual([2000, 1_500_000_000n, 'x']);
});

test.each(['posix', 'gnu'])(
  'a later volume of a tar, as tar --format=%s makes it, is told',
  async (format) => {
    const { root } = await Host.in(inject('scratch'));
    const at = (name: string) => join(root, name);
    await mkdir(at('tree'));
    for (const name of ['a', 'b']) await writeFile(at(`tree/${name}`), pattern(100_000));
    const volumes = ['1', '2', '3'].flatMap((name) => ['--file', at(name)]);
    const create = [
      '--create',
      '--directory',
      at('tree'),
      `--format=${format}`,
      '--tape-length=90',
      'a',
      'b',
    ];
    execFileSync('tar', [...create, '--multi-volume', ...volumes]);
    for (const name of ['2', '3'])
      await expect(membersOf(await readFile(at(name)))).rejects.toThrow(
        /^is one volume of several: join them/,
      );
    // What the message says to do.
    await mkdir(at('joined'));
    execFileSync('tar', ['--extract', '--directory', at('joined'), '--multi-volume', ...volumes]);
    expect(await readFile(at('joined/b'))).toEqual(pattern(100_000));
    // A label is of a single one, too.
    const label = ['--label=root', `--format=${format}`, '--directory', at('tree')];
    execFileSync('tar', ['--create', '--file', at('whole'), ...label, 'a', 'b']);
    expect(await membersOf(await readFile(at('whole')))).toHaveLength(2);
  },
);

test('the first volume of a tar is told, also where it ends behind a member', async () => {
  const { root } = await Host.in(inject('scratch'));
  const at = (name: string) => join(root, name);
  // With their headers as long as a volume, and half of one.
  const files = ['a', 'b', 'c', 'd'].map((name, i) => [name, pattern(i === 0 ? 19 * 512 : 9 * 512)] as const);
  for (const [name, bytes] of files) await writeFile(at(name), bytes);
  const volumesOf = (format: string, ...names: string[]) => {
    const volumes = ['1', '2', '3'].flatMap((name) => ['--file', at(`${format}.${name}`)]);
    const create = ['--create', '--multi-volume', '--tape-length=10', `--format=${format}`];
    execFileSync('tar', [...create, ...volumes, '-C', root, ...names]);
    return readFile(at(`${format}.1`));
  };
  await expect(membersOf(await volumesOf('gnu', 'b', 'a'))).rejects.toThrow(
    /within a member.*get it again; if it is one volume .*--multi-volume/,
  );
  const ends: [string, boolean][] = [];
  const first = await volumesOf('gnu', 'b', 'c', 'd');
  expect(await membersOf(first, (why, isCutOff) => ends.push([why, isCutOff]))).toHaveLength(2);
  expect(ends).toEqual([[expect.stringMatching(/^has no mark of its end: it was.*--multi-volume/), true]]);
});

test.each(['posix', 'gnu'])(
  'an incremental backup, as tar --format=%s makes it, is told unless it is the first level',
  async (format) => {
    const { root } = await Host.in(inject('scratch'));
    const at = (name: string) => join(root, name);
    await mkdir(at('tree/etc'), { recursive: true });
    // A list of more than one read.
    for (let i = 0; i < 700; i++) await writeFile(at(`tree/${String(i).padStart(200, 'n')}`), '');
    await writeFile(at('tree/etc/hostname'), 'old');
    const snapshot = ['--listed-incremental', at('snapshot')];
    const create = (name: string) =>
      execFileSync('tar', [
        '--create',
        `--format=${format}`,
        '-C',
        at('tree'),
        ...snapshot,
        '-f',
        at(name),
        '.',
      ]);
    create('first');
    const first = await readFile(at('first'));
    expect(await membersOf(first)).toHaveLength(703);
    await writeFile(at('tree/new'), 'new');
    create('second');
    await expect(membersOf(await readFile(at('second')))).rejects.toThrow(
      /^is an incremental backup.*--listed-incremental=\/dev\/null/,
    );
    // What the message says to do.
    await mkdir(at('restored'));
    for (const name of ['first', 'second'])
      execFileSync('tar', [
        '--extract',
        '-C',
        at('restored'),
        '--listed-incremental=/dev/null',
        '-f',
        at(name),
      ]);
    expect(await readFile(at('restored/etc/hostname'), 'utf8')).toBe('old');
    expect(await readFile(at('restored/new'), 'utf8')).toBe('new');
  },
);

test('names of any length come before their member, and count for that one alone', async () => {
  const long = 'n'.repeat(1000);
  const [first, second] = await membersOf(
    makeTar([
      { path: '././@LongLink', type: 'L', contents: Buffer.from(`${long}\0`) },
      { path: '././@LongLink', type: 'K', contents: Buffer.from(`${long}${long}`) },
      { path: 'short', type: '2', target: 'short' },
      { path: 'next', type: '2', target: 'own' },
    ]),
  );
  expect(first?.path.toString()).toBe(long);
  expect(first?.linkTarget.toString()).toBe(`${long}${long}`);
  expect([second?.path.toString(), second?.linkTarget.toString()]).toEqual(['next', 'own']);
});

test('a device or link has no contents, whatever its header says', async () => {
  for (const type of ['2', '3', '4', '5', '6']) {
    const member = await only({ path: 'x', type, contents: Buffer.alloc(0), target: 'y' });
    expect(member).toMatchObject({ type, sizeBytes: 0, segments: [] });
  }
});

test('only the block behind a hard link with a size tells whether contents follow, and then only in pax', async () => {
  const link = { path: 'x', type: '1', target: 'y', contents: pattern(600) };
  const next = { path: 'next' };
  const read = async (tar: Buffer) =>
    (await membersOf(tar)).map(({ path, sizeBytes }) => `${path} ${sizeBytes}`);
  const withContents = makeTar([{ ...link, pax: { mtime: '1' } }, next]);
  expect(await read(withContents)).toEqual(['x 600', 'next 0']);
  const [member] = await membersOf(withContents);
  expect(contentsOf(withContents, member as TarMember).equals(link.contents)).toBe(true);
  await damaged([link, next], /no header of a tar/);
  // As Go writes it: the size of the file, and nothing behind.
  const bare = (...after: Member[]) => {
    const tar = makeTar([{ ...link, pax: { mtime: '1' } }, ...after]);
    return Buffer.concat([tar.subarray(0, 3 * 512), tar.subarray(5 * 512)]);
  };
  expect(await read(bare(next, { path: 'last' }))).toEqual(['x 0', 'next 0', 'last 0']);
  expect(await read(bare())).toEqual(['x 0']);
  expect(await read(bare().subarray(0, 3 * 512))).toEqual(['x 0']);
});

const sparse = (pax: Record<string, string>, contents = pattern(1024)): Member => ({
  path: 'x',
  contents,
  pax,
});

test('a sparse file has its parts where its map says, in each of GNU’s three ways', async () => {
  const parts = [
    { at: 4096, length: 512 },
    { at: 1_000_000, length: 512 },
  ];
  const data = pattern(1024);
  const inContents = Buffer.concat([Buffer.from('2\n4096\n512\n1000000\n512\n'.padEnd(512, '\0')), data]);
  const ways: [Record<string, string>, Buffer][] = [
    [{ 'GNU.sparse.size': '2000000', 'GNU.sparse.map': '4096,512,1000000,512' }, data],
    [{ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '2000000' }, inContents],
  ];
  for (const [pax, contents] of ways) {
    const tar = makeTar([sparse(pax, contents), { path: 'next' }]);
    const [member, next] = await membersOf(tar);
    expect(member?.sizeBytes).toBe(2_000_000);
    expect(member?.segments.map(({ at, length }) => ({ at, length }))).toEqual(parts);
    const bytes = contentsOf(tar, member as TarMember);
    expect(bytes.subarray(4096, 4608).equals(data.subarray(0, 512))).toBe(true);
    expect(bytes.subarray(1_000_000, 1_000_512).equals(data.subarray(512))).toBe(true);
    expect(next?.path.toString()).toBe('next');
  }
});

test.each([
  ['no number', 'much'],
  ['a fraction', '1.5'],
  ['less than nothing', '-1'],
  ['more than a number can be', '9'.repeat(30)],
  ['without end', 'Infinity'],
])('a length that is %s is damage, wherever it is said', async (_, length) => {
  await damaged([sparse({ size: length })]);
  for (const key of ['GNU.sparse.size', 'GNU.sparse.realsize']) {
    await damaged([sparse({ [key]: length })]);
    await damaged([sparse({ [key]: length, 'GNU.sparse.map': '0,512' })]);
    await damaged([sparse({ [key]: length, 'GNU.sparse.major': '1' }, Buffer.from('0\n'.padEnd(512, '\0')))]);
  }
});

test('a sparse file of star is named, for its map is not where that of GNU is', async () => {
  const tar = makeTar([{ path: 'file', type: 'S', contents: pattern(512) }]);
  const mark = Buffer.from('tar\0');
  mark.copy(tar, 508);
  const sum =
    Number.parseInt(tar.toString('latin1', 148, 154), 8) + mark.reduce((total, byte) => total + byte, 0);
  tar.write(sum.toString(8).padStart(6, '0'), 148, 'latin1');
  await expect(membersOf(tar)).rejects.toThrow(/star's own form.*GNU tar/);
});

test('a sparse file of Solaris is named, for a file of its data alone would be another one', async () => {
  const pax = { 'SUN.holesdata': ' 0 4096 8192 12288' };
  await damaged([{ path: 'file', pax, contents: pattern(4096) }], /Solaris' own form.*GNU tar/);
});

test('a file with more data than its length, or parts that overlap or lie behind its end, is damaged', async () => {
  await damaged([sparse({ 'GNU.sparse.size': '100' })]);
  const map = (text: string, size = '100000') => sparse({ 'GNU.sparse.size': size, 'GNU.sparse.map': text });
  for (const text of [
    '0,512,256,512',
    '512,512,0,512',
    '0,-1',
    '-1,512',
    '0,1.5',
    'a,b',
    '0,512,90000,512,95000,1',
  ])
    await damaged([map(text)]);
  await damaged([map('0,512,600,512', '1000')]);
  await damaged([map(`${2 ** 53 - 1},${2 ** 53 - 1}`)]);
});

test('a map that does not end, or promises more than there is, is damage that is told at once', async () => {
  const mapped = (contents: Buffer) =>
    sparse({ 'GNU.sparse.major': '1', 'GNU.sparse.realsize': '1000000' }, contents);
  await damaged([mapped(Buffer.alloc(64 * MiB, '1'))]);
  await damaged([mapped(Buffer.alloc(16 * MiB, '5\n'))]);
  await damaged([mapped(Buffer.from(`1000000\n${'0\n'.repeat(1_500_000)}`))]);
  for (const head of ['-1\n', '1.5\n', 'x\n', '1e9\n', '2000000\n', '2\n0\n512\n'])
    await damaged([mapped(Buffer.from(head.padEnd(512, '\0')))]);
  // Of this member, not of the next.
  await damaged([mapped(Buffer.from('3\n'.padEnd(512, '\0'))), { path: '0\n0\n0\n0\n0\n0\n' }]);
});

test('a header of millions of records is read past, or refused, before it fills the memory', async () => {
  const repeated = (record: string) => Buffer.from(record.repeat((8 * MiB) / record.length));
  const started = performance.now();
  const member = await only({ path: 'x', type: 'x', contents: repeated('5 a=\n') }, { path: 'file' });
  expect(member.pax).toEqual([]);
  for (const type of ['x', 'g'])
    await damaged([{ path: 'x', type, contents: repeated('18 SCHILY.xattr.=\n') }, { path: 'file' }]);
  expect(performance.now() - started).toBeLessThan(10_000);
});

test('records for all files are few, since each file is looked for in all of them', async () => {
  const contents = Buffer.from(
    Array.from({ length: 101 }, (_, i) => `25 SCHILY.xattr.user.${100 + i}=\n`).join(''),
  );
  await damaged([{ path: 'x', type: 'g', contents }, { path: 'file' }]);
});

test('thousands of global headers do not make each member dearer', async () => {
  const many = Array.from({ length: 20_000 }, (_, i): Member => {
    const rest = ` comment=${i}\n`;
    return { path: 'g', type: 'g', contents: Buffer.from(`${rest.length + 2}${rest}`) };
  });
  const files = Array.from({ length: 2000 }, (_, i) => ({ path: `f${i}` }));
  const tar = makeTar([...many, ...files]);
  const started = performance.now();
  expect(await membersOf(tar)).toHaveLength(2000);
  expect(performance.now() - started).toBeLessThan(10_000);
});

test.each(['L', 'K', 'x', 'g'])(
  'a header of type %s that promises more than there is, is damaged',
  async (type) => {
    const tar = makeTar([{ path: 'meta', type, contents: Buffer.from('8 a=bcd\n') }, { path: 'x' }]);
    for (const size of ['77777777777', '00777777777']) {
      const lying = Buffer.from(tar);
      lying.write(size, 124, 'latin1');
      lying.fill(' ', 148, 156);
      const sum = lying.subarray(0, 512).reduce((total, byte) => total + byte, 0);
      lying.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
      await expect(membersOf(lying)).rejects.toBeInstanceOf(TarDamaged);
    }
  },
);

test('maps of a million parts do not hold the event loop', async () => {
  const parts = 900_000;
  const map = Array.from({ length: parts }, (_, i) => `${i * 4096},1`).join();
  const pax = { 'GNU.sparse.size': `${parts * 4096}`, 'GNU.sparse.map': map };
  const reading = membersOf(makeTar([sparse(pax, pattern(parts))]));
  let longest = 0;
  for (let isRead = false; !isRead; ) {
    const before = performance.now();
    isRead = await Promise.race([
      reading.then(() => true),
      new Promise<false>((done) => setImmediate(done, false)),
    ]);
    longest = Math.max(longest, performance.now() - before);
  }
  // Mostly the garbage collector, on a busy machine. Without yielding it is two seconds.
  expect(longest).toBeLessThan(1000);
});
