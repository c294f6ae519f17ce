// Makes an ext4 image of a tree: the same bytes each time and on every host, with room to grow far. mke2fs makes the
// empty filesystem, and this library writes the tree into it. `mke2fs -d` is not used: it drops sockets, truncates
// times and copies attributes of the host.
import { resolve } from 'node:path';
import { programFailed } from '../programs/program-failed.js';
import { type Program, requireInstalled, runInstalled } from '../programs/run-program.js';
import { RootfsError } from '../system/errors.js';
import { writeOfMode } from '../system/make-files.js';
import type { Task } from '../system/task.js';
import { FilesystemFull } from './ext4/groups.js';
import { BLOCK_BYTES, INODE_BYTES } from './ext4/layout.js';
import { planTree, type TreePlan } from './ext4/tree-plan.js';
import { writeTree } from './ext4/write-tree.js';
import { FIXED_TIME_NS, type FolderNode } from './tree/file-tree.js';
import { tooLarge } from './tree/limits.js';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;

// Fixed, because all clones of a template share them anyway.
const FILESYSTEM_UUID = '6d766d72-6f6f-4466-8000-000000000001';
const HASH_SEED = '6d766d72-6f6f-4466-8000-000000000002';

// All features are listed and mke2fs.conf is not read, so that the image does not depend on the distribution. Linux
// 4.14 knows all of them, and so does every guest kernel that current VMMs boot.
const FEATURES = [
  'none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super',
  'large_file,huge_file,dir_nlink,extra_isize,metadata_csum',
].join();

const BYTES_PER_INODE = 16 * 1024;

// With fewer, as for a tree of links, mke2fs makes small block groups, and each grow repeats them: inode tables took
// half of a grown disk. With this they take a sixteenth.
const LEAST_BYTES_PER_INODE = 4 * 1024;

// Grow by a whole block group: resize2fs has trouble with less. Without data it takes no space.
const SMALLEST = 128 * MiB;

// By default mke2fs reserves room to grow to 1,024 times the size, which is too little for a small image.
const GROWS_TO_BYTES = 1024 * GiB;

/** What mke2fs says where the inodes, or its own structures beside them, do not fit. */
const TOO_SMALL =
  /too big for a\s+filesystem|requested number of inodes|Could not allocate block in ext2|Not enough space to build/;

/** What it says of every file system, since its settings are not read. */
const NO_SETTINGS = /^Warning: the fs_type .*\n*/gm;

interface TreeImage {
  readonly root: FolderNode;
  /** The source of the tree, used in messages. */
  readonly source: string;
  /** Path of the new image. It must not exist. */
  readonly image: string;
  readonly sizeBytes: number | undefined;
  /** What the files may take, of an untrusted source: a byte of a sparse file takes a block. */
  readonly maxBytes?: number | undefined;
  readonly mke2fsBin: string;
}

/** Rejects with `MKE2FS_NOT_FOUND`. */
export function requireMke2fs(mke2fsBin: string): Promise<void> {
  return requireInstalled(mke2fsProgram(mke2fsBin));
}

function mke2fsProgram(name: string): Program {
  return { name, package: 'e2fsprogs', notFound: 'MKE2FS_NOT_FOUND' };
}

/**
 * Rejects with `IMAGE_INVALID` for what ext4 cannot hold, `MKE2FS_FAILED`, `MKE2FS_NOT_FOUND`, `SOURCE_TOO_LARGE`, or a
 * system error code.
 */
export async function makeExt4(task: Task, request: TreeImage): Promise<void> {
  const { root, source, image, maxBytes = Number.POSITIVE_INFINITY } = request;
  const checkAborted = () => task.checkAborted();
  const plan = await planTree(root, source, checkAborted);
  const filesBytes = plan.blocks * BLOCK_BYTES;
  if (filesBytes > maxBytes)
    throw tooLarge(source, `holds files that take ${filesBytes} bytes of an image`, 'limits.maxBytes');
  const sizeBytes = request.sizeBytes ?? sizeFor(plan);
  try {
    await makeEmpty(task, request, plan, sizeBytes);
    await writeTree(image, plan, FIXED_TIME_NS, checkAborted);
  } catch (error) {
    if (!(error instanceof FilesystemFull)) throw error;
    throw new RootfsError(
      'MKE2FS_FAILED',
      `${source} does not fit into the ${sizeBytes} bytes that sizeBytes asks for: its files take ` +
        `${filesBytes} bytes and ${plan.lastInode} inodes of ${INODE_BYTES}, and the file system its own. ` +
        `Leave sizeBytes out, or give ${sizeFor(plan)}`,
      { path: source },
    );
  }
}

/** Adds a quarter of the size and 64 MiB. A journal takes part of that. */
function sizeFor(plan: TreePlan): number {
  const inodes = inodesFor(plan, 0);
  const needed = (plan.blocks * BLOCK_BYTES + inodes * INODE_BYTES) * 1.25 + 64 * MiB;
  return Math.max(SMALLEST, Math.ceil(Math.max(needed, inodes * LEAST_BYTES_PER_INODE) / MiB) * MiB);
}

function inodesFor({ lastInode }: TreePlan, sizeBytes: number): number {
  return Math.max(Math.ceil(lastInode * 1.25) + 32, Math.ceil(sizeBytes / BYTES_PER_INODE));
}

async function makeEmpty(
  { signal }: Task,
  { source, image, mke2fsBin }: TreeImage,
  plan: TreePlan,
  sizeBytes: number,
): Promise<void> {
  const extended = [
    `hash_seed=${HASH_SEED}`,
    'root_owner=0:0',
    // Otherwise each guest would run a thread that finishes making the filesystem.
    'lazy_itable_init=0',
    'lazy_journal_init=0',
    'nodiscard',
    ...(sizeBytes < GROWS_TO_BYTES / 1024 ? [`resize=${GROWS_TO_BYTES / BLOCK_BYTES}`] : []),
  ];
  const args = [
    ...['-q', '-F', '-b', `${BLOCK_BYTES}`, '-I', `${INODE_BYTES}`, '-m', '0', '-L', 'rootfs'],
    ...['-N', `${inodesFor(plan, sizeBytes)}`, '-O', FEATURES, '-U', FILESYSTEM_UUID],
    ...['-E', extended.join(','), resolve(image), `${sizeBytes / BLOCK_BYTES}`],
  ];
  await writeOfMode(image, '');
  const exit = await runInstalled(mke2fsProgram(mke2fsBin), args, signal, {
    env: { E2FSPROGS_FAKE_TIME: `${FIXED_TIME_NS / 1_000_000_000n}`, MKE2FS_CONFIG: '/dev/null' },
  });
  if (TOO_SMALL.test(exit.stderr)) throw new FilesystemFull(exit.stderr);
  if (exit.status === 0) return;
  const stderr = exit.stderr.replaceAll(resolve(image), source).replace(NO_SETTINGS, '');
  throw programFailed('MKE2FS_FAILED', mke2fsBin, source, { ...exit, stderr });
}
