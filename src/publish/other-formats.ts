// Recognises files that are not ext4 images, so that the error can say what the file is and what to do with it.
import { stat } from 'node:fs/promises';
import { parseSuperblock, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE } from '../image/ext4.js';
import { readBytes } from '../image/read-bytes.js';
import { firstBytesAfterSkippable } from './image-format.js';

interface Described {
  /** Text that follows "it is". */
  readonly name: string;
  readonly remedy: string;
}

interface Other extends Described {
  readonly offset: number;
  readonly magic: string;
}

const CONVERT = (format: string) =>
  `convert it with qemu-img convert -f ${format} -O raw, and publish its root partition`;
const DECOMPRESS = (program: string) => `decompress it with ${program} -d`;
const MAKE_EXT4 = 'mount it and publish the folder, or a tar of it';
const UNPACK = (how: string) => `unpack it with ${how} and publish the folder`;
const ROOT_OF_LINUX = 'publish a root file system of Linux';
/** For what is of no use, whatever it lies in. */
export const FETCH = 'fetch the image itself';

/** Those of distributions have a partition table as well, to start from a USB stick. */
const ISO: Other = {
  offset: 0x8001,
  magic: 'CD001',
  name: 'an ISO 9660 image, as of a CD',
  remedy: `${MAKE_EXT4}; if it is of a live system, unpack the squashfs in it with unsquashfs and publish that folder`,
};

/** They have a superblock where ext4 has its own. */
const OF_E2FSPROGS: readonly Other[] = [
  {
    offset: 4,
    magic: 'Ext2 Image 1',
    name: 'metadata of an ext4 file system without its files, as e2image saves it',
    remedy: 'publish the image itself',
  },
  {
    offset: 0,
    magic: 'E2UNDO',
    name: 'an undo file of e2fsprogs, with a few blocks of an ext4 file system',
    remedy: 'publish the image itself',
  },
];

const OTHERS: readonly Other[] = [
  ...OF_E2FSPROGS,
  { offset: 0, magic: 'BZh', name: 'compressed with bzip2', remedy: DECOMPRESS('bzip2') },
  { offset: 0, magic: '\x04\x22\x4d\x18', name: 'compressed with lz4', remedy: DECOMPRESS('lz4') },
  { offset: 0, magic: '\x02\x21\x4c\x18', name: 'compressed with lz4', remedy: DECOMPRESS('lz4') },
  { offset: 0, magic: 'LZIP', name: 'compressed with lzip', remedy: DECOMPRESS('lzip') },
  { offset: 0, magic: '\x89LZO\0', name: 'compressed with lzop', remedy: DECOMPRESS('lzop') },
  { offset: 0, magic: '\x1f\x9d', name: 'compressed with compress', remedy: DECOMPRESS('gzip') },
  { offset: 0, magic: '\x5d\0\0', name: 'compressed with lzma', remedy: DECOMPRESS('xz --format=lzma') },
  { offset: 0, magic: '\xff\x06\0\0sNaPpY', name: 'compressed with snappy', remedy: 'decompress it' },
  { offset: 0, magic: 'LRZI', name: 'compressed with lrzip', remedy: DECOMPRESS('lrzip') },
  { offset: 0, magic: 'age-encryption.org/', name: 'encrypted with age', remedy: 'decrypt it with age -d' },
  { offset: 0, magic: '-----BEGIN PGP', name: 'encrypted with PGP', remedy: 'decrypt it with gpg -d' },
  { offset: 0, magic: 'KDMV', name: 'a VMDK disk image', remedy: CONVERT('vmdk') },
  { offset: 0, magic: 'COWD', name: 'a VMDK disk image', remedy: CONVERT('vmdk') },
  {
    offset: 0,
    magic: '# Disk DescriptorFile',
    name: 'the descriptor of a VMDK disk image',
    remedy: CONVERT('vmdk'),
  },
  { offset: 0, magic: 'vhdxfile', name: 'a VHDX disk image', remedy: CONVERT('vhdx') },
  { offset: 0, magic: 'conectix', name: 'a VHD disk image', remedy: CONVERT('vpc') },
  { offset: 0, magic: 'cxsparse', name: 'a VHD disk image', remedy: CONVERT('vpc') },
  { offset: 0x40, magic: '\x7f\x10\xda\xbe', name: 'a VDI disk image', remedy: CONVERT('vdi') },
  { offset: 0, magic: 'QED\0', name: 'a QED disk image', remedy: CONVERT('qed') },
  { offset: 0, magic: 'WithoutFreeSpace', name: 'a Parallels disk image', remedy: CONVERT('parallels') },
  { offset: 0, magic: 'WithouFreSpacExt', name: 'a Parallels disk image', remedy: CONVERT('parallels') },
  {
    offset: 0,
    magic: '\x3a\xff\x26\xed',
    name: 'an Android sparse image',
    remedy: 'convert it with simg2img and publish what that writes',
  },
  { offset: 0, magic: 'hsqs', name: 'a squashfs image', remedy: UNPACK('unsquashfs') },
  { offset: 1024, magic: '\xe2\xe1\xf5\xe0', name: 'an EROFS image', remedy: MAKE_EXT4 },
  { offset: 0, magic: 'XFSB', name: 'an XFS image', remedy: MAKE_EXT4 },
  { offset: 0x10040, magic: '_BHRfS_M', name: 'a btrfs image', remedy: MAKE_EXT4 },
  { offset: 1024, magic: '\x10\x20\xf5\xf2', name: 'an F2FS image', remedy: MAKE_EXT4 },
  { offset: 0, magic: '\x45\x3d\xcd\x28', name: 'a cramfs image', remedy: MAKE_EXT4 },
  { offset: 0, magic: 'UBI#', name: 'a UBI image, as for flash', remedy: ROOT_OF_LINUX },
  { offset: 0, magic: '\x85\x19\x03\x20', name: 'a JFFS2 image, as for flash', remedy: MAKE_EXT4 },
  { offset: 0, magic: '\x85\x19\x01\xe0', name: 'a JFFS2 image, as for flash', remedy: MAKE_EXT4 },
  { offset: 0x8001, magic: 'BEA01', name: 'a UDF image, as of a DVD', remedy: MAKE_EXT4 },
  { offset: 3, magic: 'EXFAT   ', name: 'an exFAT image', remedy: ROOT_OF_LINUX },
  { offset: 3, magic: 'NTFS    ', name: 'an NTFS image', remedy: ROOT_OF_LINUX },
  {
    offset: 82,
    magic: 'FAT32',
    name: 'a FAT image, as of an EFI partition',
    remedy: 'publish the root partition',
  },
  {
    offset: 54,
    magic: 'FAT',
    name: 'a FAT image, as of an EFI partition',
    remedy: 'publish the root partition',
  },
  { offset: 4086, magic: 'SWAPSPACE2', name: 'a swap area', remedy: 'publish the root partition' },
  {
    offset: 0,
    magic: 'LUKS\xba\xbe',
    name: 'encrypted with LUKS',
    remedy: 'open it with cryptsetup and publish what is inside',
  },
  {
    offset: 512,
    magic: 'LABELONE',
    name: 'a physical volume of LVM',
    remedy: 'activate it and publish its root volume',
  },
  { offset: 0, magic: '07070', name: 'a cpio archive, as an initramfs is', remedy: UNPACK('cpio -idm') },
  { offset: 0, magic: '\xc7\x71', name: 'a cpio archive in its old form', remedy: UNPACK('cpio -idm') },
  { offset: 0, magic: '\x71\xc7', name: 'a cpio archive in its old form', remedy: UNPACK('cpio -idm') },
  { offset: 0, magic: 'xar!', name: 'a xar archive', remedy: UNPACK('bsdtar -x') },
  { offset: 0, magic: 'MSWIM\0\0\0', name: 'a WIM image, as of Windows', remedy: ROOT_OF_LINUX },
  { offset: 0, magic: 'PK\x03\x04', name: 'a zip archive', remedy: UNPACK('unzip') },
  { offset: 0, magic: '7z\xbc\xaf\x27\x1c', name: 'a 7z archive', remedy: UNPACK('7z x') },
  { offset: 0, magic: 'Rar!', name: 'a rar archive', remedy: UNPACK('unrar') },
  {
    offset: 0,
    magic: '!<arch>',
    name: 'an ar archive, as a Debian package is',
    remedy: 'publish a root file system',
  },
  { offset: 0, magic: '\xed\xab\xee\xdb', name: 'an RPM package', remedy: 'publish a root file system' },
  { offset: 0, magic: '\x27\x05\x19\x56', name: 'an image for U-Boot', remedy: 'publish a root file system' },
  { offset: 0, magic: '\x7fELF', name: 'an ELF program or kernel', remedy: 'publish a root file system' },
  { offset: 0, magic: 'version https://git-lfs', name: 'a pointer of Git LFS', remedy: 'run git lfs pull' },
  { offset: 0, magic: '<!', name: 'a web page or XML', remedy: FETCH },
  { offset: 0, magic: '<html', name: 'a web page', remedy: FETCH },
  { offset: 0, magic: '<?xml', name: 'an XML document', remedy: FETCH },
  { offset: 0, magic: '{', name: 'a JSON document', remedy: FETCH },
];

const HEAD_BYTES = 0x10100;
const FOOTER_BYTES = 512;

/** Their only magic is at their end, in front of which anything may lie. */
const WITH_FOOTER: readonly (Described & { readonly magic: string })[] = [
  { magic: 'conectix', name: 'a VHD disk image', remedy: CONVERT('vpc') },
  { magic: 'koly', name: 'a DMG disk image, as of macOS', remedy: CONVERT('dmg') },
];

// The first sector of a partition, of old programs, new ones and those for flash cards.
const PARTITION_STARTS = [63 * 512, ...[1, 2, 4, 8, 16].map((mebibytes) => mebibytes * 1024 * 1024)];
const SECOND_SUPERBLOCKS = [
  [1024, 8193],
  [2048, 16_384],
  [4096, 32_768],
] as const;
/** In a superblock: the group of blocks that this copy is in. */
const GROUP_AT = 0x5a;

const GPT_MAGIC = 'EFI PART';
const PARTITION_TABLE_AT = 446;
const PARTITIONS = 4;
const PARTITION_BYTES = 16;

/** Describes a file that holds no ext4, and what to do with it. */
export async function describeOther(path: string): Promise<Described | undefined> {
  const { size } = await stat(path);
  if (size === 0) return { name: 'empty', remedy: FETCH };
  const head = await readBytes(path, 0, HEAD_BYTES);
  if (head.every((byte) => byte === 0))
    return (await describeHidden(path)) ?? { name: 'all zeros at its start', remedy: FETCH };
  const data = await firstBytesAfterSkippable(path, head);
  return (
    (startsWith(head, ISO.offset, ISO.magic) ? ISO : partitioned(head)) ??
    OTHERS.find(({ offset, magic }) => startsWith(offset === 0 ? data : head, offset, magic)) ??
    (await describeByFooter(path, size)) ??
    (await describeHidden(path))
  );
}

/** Finds ext4 where a first partition begins, or by the superblock that the second group of blocks keeps. */
async function describeHidden(path: string): Promise<Described | undefined> {
  const superblockAt = async (at: number, inGroup: number) => {
    const bytes = await readBytes(path, at, SUPERBLOCK_SIZE);
    const superblock = parseSuperblock(bytes);
    return superblock?.checksumMatches && bytes.readUInt16LE(GROUP_AT) === inGroup ? superblock : undefined;
  };
  for (const start of PARTITION_STARTS) {
    if ((await superblockAt(start + SUPERBLOCK_OFFSET, 0)) === undefined) continue;
    const remedy = `copy the file system alone, with dd iflag=skip_bytes skip=${start}, and publish the copy`;
    return { name: `an ext4 file system that begins at byte ${start}`, remedy };
  }
  for (const [blockSize, block] of SECOND_SUPERBLOCKS) {
    if ((await superblockAt(block * blockSize, 1))?.blockSize !== blockSize) continue;
    const remedy = `mend a copy with e2fsck -fy -b ${block} -B ${blockSize}, and publish that`;
    return { name: 'an ext4 file system that has lost its first superblock', remedy };
  }
  return undefined;
}

function partitioned(head: Buffer): Described | undefined {
  const remedy =
    'publish its root partition: attach it with losetup -fP, and give the device of the partition copied ' +
    'by dd, or mount it and publish the folder';
  if (startsWith(head, 512, GPT_MAGIC) || startsWith(head, 4096, GPT_MAGIC))
    return { name: 'a whole disk with a GPT partition table', remedy };
  if (head.length < 512 || head.readUInt16LE(510) !== 0xaa55) return undefined;
  // FAT boot sectors and some others end with the same bytes, but have no partitions there.
  const entries = Array.from({ length: PARTITIONS }, (_, i) =>
    head.subarray(PARTITION_TABLE_AT + i * PARTITION_BYTES, PARTITION_TABLE_AT + (i + 1) * PARTITION_BYTES),
  );
  const valid = entries.every((entry) => ((entry[0] as number) & 0x7f) === 0);
  const used = entries.some(
    (entry) => entry[4] !== 0 && entry.readUInt32LE(8) > 0 && entry.readUInt32LE(12) > 0,
  );
  return valid && used ? { name: 'a whole disk with an MBR partition table', remedy } : undefined;
}

/** What is no image although it has a superblock. */
export async function describeByHead(path: string): Promise<Described | undefined> {
  const head = await readBytes(path, 0, SUPERBLOCK_OFFSET);
  return OF_E2FSPROGS.find(({ offset, magic }) => startsWith(head, offset, magic));
}

/** A VHD of fixed size, for one, begins with what is in it. */
export async function describeByFooter(path: string, size: number): Promise<Described | undefined> {
  const footer = await readBytes(path, Math.max(0, size - FOOTER_BYTES), FOOTER_BYTES);
  return WITH_FOOTER.find(({ magic }) => startsWith(footer, 0, magic));
}

function startsWith(bytes: Buffer, offset: number, magic: string): boolean {
  return bytes.toString('latin1', offset, offset + magic.length) === magic;
}
