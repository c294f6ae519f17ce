// Files that hold no ext4, as other programs make them: each is named for what it is.
import { execFileSync } from 'node:child_process';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { describeOther } from '../../src/publish/other-formats.js';
import { writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, MiB, makeExt4Image, pattern } from '../fixtures/images.js';
import { Random } from '../fixtures/random.js';
import { findTool, lacks, type Tool } from '../fixtures/tools.js';

async function newFolder(): Promise<string> {
  return (await Host.in(inject('scratch'))).root;
}

async function described(bytes: Buffer): Promise<string | undefined> {
  const path = join(await newFolder(), 'source');
  await writeFile(path, bytes);
  return (await describeOther(path))?.name;
}

const qemu = (format: string, ...options: string[]) => [
  ...['qemu-img', 'create', '-q', '-f', format, ...options, 'OUT', '64M'],
];

const LUKS = ['--object', 'secret,id=s,data=x', '-o', 'key-secret=s'];

test.for<[string, Tool, string[]]>([
  [
    'metadata of an ext4 file system without its files, as e2image saves it',
    'mke2fs',
    ['sh', '-c', 'mke2fs -qF OUT.img 8M && e2image OUT.img OUT'],
  ],
  [
    'an undo file of e2fsprogs, with a few blocks of an ext4 file system',
    'mke2fs',
    ['sh', '-c', 'mke2fs -qF OUT.img 8M && tune2fs -z OUT -L x OUT.img'],
  ],
  ['a VMDK disk image', 'qemu-img', qemu('vmdk')],
  ['a VMDK disk image', 'qemu-img', qemu('vmdk', '-o', 'subformat=streamOptimized')],
  ['the descriptor of a VMDK disk image', 'qemu-img', qemu('vmdk', '-o', 'subformat=monolithicFlat')],
  ['a VHDX disk image', 'qemu-img', qemu('vhdx')],
  ['a VHD disk image', 'qemu-img', qemu('vpc')],
  ['a VDI disk image', 'qemu-img', qemu('vdi')],
  ['a QED disk image', 'qemu-img', qemu('qed')],
  ['a Parallels disk image', 'qemu-img', qemu('parallels')],
  [
    'encrypted with LUKS',
    'qemu-img',
    // On a busy machine it sometimes cannot measure how quick its key derivation is, and gives up.
    ['sh', '-c', `for i in 1 2 3 4 5; do ${qemu('luks', ...LUKS).join(' ')} && exit; done; exit 1`],
  ],
  ['an XFS image', 'mkfs.xfs', ['mkfs.xfs', '-q', 'OUT']],
  ['a btrfs image', 'mkfs.btrfs', ['mkfs.btrfs', '-q', 'OUT']],
  ['a squashfs image', 'mksquashfs', ['mksquashfs', 'IN', 'OUT', '-noappend', '-quiet']],
  ['an EROFS image', 'mkfs.erofs', ['mkfs.erofs', 'OUT', 'IN']],
  ['a swap area', 'mkswap', ['mkswap', '-q', 'OUT']],
  ['a FAT image, as of an EFI partition', 'mkfs.fat', ['mkfs.fat', 'OUT']],
  ['compressed with bzip2', 'bzip2', ['sh', '-c', 'bzip2 < IN/file > OUT']],
  ['compressed with lz4', 'lz4', ['sh', '-c', 'lz4 -q < IN/file > OUT']],
  ['compressed with lz4', 'lz4', ['sh', '-c', 'lz4 -l -q < IN/file > OUT']],
  ['compressed with lzma', 'xz', ['sh', '-c', 'xz --format=lzma < IN/file > OUT']],
  ['a cpio archive, as an initramfs is', 'cpio', ['sh', '-c', 'echo IN/file | cpio -oH newc --quiet > OUT']],
  ['a zip archive', 'zip', ['sh', '-c', 'zip -q - IN/file > OUT']],
  ['an ar archive, as a Debian package is', 'ar', ['ar', 'rc', 'OUT', 'IN/file']],
  ['an ELF program or kernel', 'tar', ['sh', '-c', 'cat "$(readlink -f /proc/self/exe)" > OUT']],
])('%s, as %s makes it', async ([name, program, command], { skip }) => {
  const missing = lacks(program);
  if (missing !== undefined) skip(missing);
  const folder = await newFolder();
  const out = join(folder, 'out');
  await mkdir(join(folder, 'in'));
  await writeFile(join(folder, 'in/file'), pattern(100_000));
  // What makes a file system wants room for it.
  if (/^mk(fs\.(xfs|btrfs|fat)|swap)$/.test(program)) await writeSparse(out, 512 * MiB);
  const [first = '', ...args] = command.map((word) =>
    // In one pass: the folder's name is random, and may hold either word.
    word.replace(/\b(IN|OUT)\b/g, (name) => (name === 'IN' ? join(folder, 'in') : out)),
  );
  const path = `${process.env.PATH}:/usr/sbin:/sbin`;
  execFileSync(findTool(first as Tool) ?? first, args, {
    stdio: 'pipe',
    env: { ...process.env, PATH: path },
  });
  expect((await describeOther(out))?.name).toBe(name);
});

test('a VHD of fixed size is known by its end, and a file of that length alone is not', async ({ skip }) => {
  const missing = lacks('qemu-img');
  if (missing !== undefined) skip(missing);
  const folder = await newFolder();
  const path = join(folder, 'fixed');
  await writeFile(`${path}.raw`, pattern(MiB));
  const options = ['-f', 'raw', '-O', 'vpc', '-o', 'subformat=fixed', `${path}.raw`, path];
  execFileSync('qemu-img', ['convert', ...options]);
  expect((await describeOther(path))?.name).toBe('a VHD disk image');
  expect(await describeOther(`${path}.raw`)).toBeUndefined();
});

test('a DMG is known by its end', async () => {
  const path = join(await newFolder(), 'dmg');
  await writeFile(path, Buffer.concat([pattern(MiB), Buffer.from('koly'.padEnd(512, '\0'))]));
  expect((await describeOther(path))?.name).toBe('a DMG disk image, as of macOS');
});

test('a partition table is told from the boot sector of a file system, which ends with the same bytes', async () => {
  const sector = (entries: (bytes: Buffer) => void) => {
    const bytes = pattern(70_000);
    bytes.fill(0, 0, 512);
    bytes.writeUInt16LE(0xaa55, 510);
    entries(bytes);
    return bytes;
  };
  const entry = (bytes: Buffer, i: number, boot: number, type: number, start: number, count: number) => {
    const at = 446 + i * 16;
    bytes[at] = boot;
    bytes[at + 4] = type;
    bytes.writeUInt32LE(start, at + 8);
    bytes.writeUInt32LE(count, at + 12);
  };
  const MBR = 'a whole disk with an MBR partition table';
  expect(await described(sector((bytes) => entry(bytes, 3, 0x80, 0x83, 1, 1)))).toBe(MBR);
  expect(await described(sector((bytes) => entry(bytes, 0, 0, 0x07, 2 ** 32 - 1, 2 ** 32 - 1)))).toBe(MBR);
  for (const unused of [
    () => {},
    (bytes: Buffer) => entry(bytes, 0, 0x80, 0, 1, 1),
    (bytes: Buffer) => entry(bytes, 0, 0x80, 0x83, 0, 1),
    (bytes: Buffer) => entry(bytes, 0, 0x80, 0x83, 1, 0),
    // Boot code rather than a flag.
    (bytes: Buffer) => {
      entry(bytes, 0, 0x80, 0x83, 1, 1);
      entry(bytes, 1, 0x12, 0x83, 1, 1);
    },
  ])
    expect(await described(sector(unused))).toBeUndefined();
  const fat = sector((bytes) => bytes.write('FAT16   ', 54));
  expect(await described(fat)).toBe('a FAT image, as of an EFI partition');
  for (const at of [512, 4096]) {
    const disk = sector(() => {});
    disk.write('EFI PART', at);
    expect(await described(disk)).toBe('a whole disk with a GPT partition table');
  }
});

test('an ISO image with partitions, as distributions make them, is an ISO image all the same', async () => {
  const path = join(await newFolder(), 'iso');
  const iso = Buffer.alloc(70_000);
  iso.write('CD001', 0x8001);
  const gpt = Buffer.from(iso);
  gpt.write('EFI PART', 512);
  const mbr = Buffer.from(iso);
  mbr.set([0x80, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], 446);
  mbr.writeUInt16LE(0xaa55, 510);
  for (const bytes of [iso, gpt, mbr]) {
    await writeFile(path, bytes);
    const { name, remedy } = (await describeOther(path)) ?? {};
    expect(name).toBe('an ISO 9660 image, as of a CD');
    expect(remedy).toMatch(/mount it and publish the folder.*unsquashfs/);
  }
});

test('a sparse image of Android is told, with the program that converts it', async () => {
  const bytes = pattern(8192);
  bytes.writeUInt32LE(0xed26ff3a, 0);
  expect(await described(bytes)).toBe('an Android sparse image');
});

test.each<[name: string, offset: number, magic: string]>([
  ['compressed with lrzip', 0, 'LRZI'],
  ['encrypted with age', 0, 'age-encryption.org/v1\n'],
  ['encrypted with PGP', 0, '-----BEGIN PGP MESSAGE-----'],
  ['a UBI image, as for flash', 0, 'UBI#'],
  ['a JFFS2 image, as for flash', 0, '\x85\x19\x03\x20'],
  ['a UDF image, as of a DVD', 0x8001, 'BEA01'],
  ['an exFAT image', 3, 'EXFAT   '],
  ['a cpio archive in its old form', 0, '\xc7\x71'],
  ['a xar archive', 0, 'xar!'],
  ['a WIM image, as of Windows', 0, 'MSWIM\0\0\0'],
  ['an image for U-Boot', 0, '\x27\x05\x19\x56'],
])('%s is told by its magic', async (name, offset, magic) => {
  const bytes = pattern(70_000);
  bytes.write(magic, offset, 'latin1');
  expect(await described(bytes)).toBe(name);
});

test.each([63 * 512, MiB, 8 * MiB])(
  'ext4 behind %i bytes is told, with the advice that gets it',
  async (start) => {
    const folder = await newFolder();
    const [image, source, copy] = ['image', 'source', 'copy'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await makeExt4Image(image, 24 * MiB, ['-b', '1024']);
    execFileSync('dd', [
      'status=none',
      `if=${image}`,
      `of=${source}`,
      'oflag=seek_bytes',
      `seek=${start}`,
      'bs=64K',
      'conv=sparse',
    ]);
    const other = await describeOther(source);
    expect(other?.name).toBe(`an ext4 file system that begins at byte ${start}`);
    const skip = other?.remedy.match(/iflag=skip_bytes skip=\d+/)?.[0].split(' ') ?? [];
    execFileSync('dd', ['status=none', `if=${source}`, `of=${copy}`, 'bs=64K', ...skip]);
    expect(await faultsOf(copy)).toBe('');
  },
);

test.each([
  ['1024', 24],
  ['2048', 64],
  ['4096', 160],
])(
  'ext4 in blocks of %s whose first superblock is lost is told, with the advice that mends it',
  async (size, mebibytes) => {
    const source = join(await newFolder(), 'source');
    await makeExt4Image(source, mebibytes * MiB, ['-b', size]);
    execFileSync('dd', [
      'status=none',
      'if=/dev/zero',
      `of=${source}`,
      'bs=1K',
      'seek=1',
      'count=1',
      'conv=notrunc',
    ]);
    const other = await describeOther(source);
    expect(other?.name).toBe('an ext4 file system that has lost its first superblock');
    const command = other?.remedy.match(/e2fsck [^,]*/)?.[0];
    execFileSync('sh', ['-c', `${command} ${source} >&2 || test $? -eq 1`], { stdio: 'pipe' });
    expect(await faultsOf(source)).toBe('');
  },
);

test('frames to skip are passed, as many as a program would write, and the length of one may lie', async () => {
  const frame = (data: number, length = data) => {
    const bytes = Buffer.alloc(8 + data);
    bytes.writeUInt32LE(0x184d2a5f);
    bytes.writeUInt32LE(length, 4);
    return bytes;
  };
  const lz4 = Buffer.from('\x04\x22\x4d\x18rest', 'latin1');
  expect(await described(Buffer.concat([frame(0), frame(10), frame(70_000), lz4]))).toBe(
    'compressed with lz4',
  );
  const many = Array.from({ length: 100 }, () => frame(1));
  expect(await described(Buffer.concat([...many, lz4]))).toBe('compressed with lz4');
  expect(await described(Buffer.concat([frame(0, 2 ** 32 - 1), lz4]))).toBeUndefined();
  expect(
    await described(Buffer.concat([...Array.from({ length: 100_000 }, () => frame(0)), lz4])),
  ).toBeUndefined();
});

test('a file of any length and bytes is described, or not, without a failure', async () => {
  const random = new Random(7);
  const path = join(await newFolder(), 'source');
  const heads = ['', '\x55\xaa', 'conectix', '{', '<', 'BZ', 'QFI', '\x50\x2a\x4d\x18', '\x7f'];
  for (let i = 0; i < 300; i++) {
    const length = random.pick([
      1, 2, 3, 7, 8, 54, 82, 509, 510, 511, 512, 513, 1024, 4096, 0x10040, 0x10100,
    ]);
    const bytes = pattern(length, i + 1);
    bytes.write(random.pick(heads), random.below(length), 'latin1');
    await writeFile(path, bytes);
    const told = await describeOther(path);
    if (told !== undefined)
      expect(told).toMatchObject({ name: expect.any(String), remedy: expect.any(String) });
  }
  await writeFile(path, '');
  expect((await describeOther(path))?.name).toBe('empty');
  await truncate(path, 2 ** 40);
  expect((await describeOther(path))?.name).toBe('all zeros at its start');
});
