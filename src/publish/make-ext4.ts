// An ext4 image of a tree: the same one each time and on every host, and one that can grow far. mke2fs makes the empty file system, and the
// tree is written into it here: `mke2fs -d` drops sockets, cuts times off, and takes attributes of the host along.
import { resolve } from 'node:path';
import { RootfsError } from '../system/errors.js';
import { programFailed, runInstalled } from '../system/programs.js';
import type { Task } from '../system/task.js';
import { FilesystemFull } from './ext4/groups.js';
import { BLOCK_BYTES, INODE_BYTES } from './ext4/layout.js';
import { planTree, type TreePlan } from './ext4/tree-plan.js';
import { writeTree } from './ext4/write-tree.js';
import type { FolderNode } from './tree/file-tree.js';

export { BLOCK_BYTES };

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;

/** 1980-01-01: what has no time of its own in the tree. */
const FIXED_TIME_S = 315_532_800;
export const FIXED_TIME_NS = BigInt(FIXED_TIME_S) * 1_000_000_000n;

// All clones of a template have the same ones anyway.
const FILESYSTEM_UUID = '6d766d72-6f6f-4466-8000-000000000001';
const HASH_SEED = '6d766d72-6f6f-4466-8000-000000000002';

// Given in full, and mke2fs.conf kept out of it: else the image would depend on the distribution. All of them are known to Linux 4.14, so to
// every guest kernel that a VMM of today starts.
const FEATURES =
  'none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum';

const BYTES_PER_INODE = 16 * 1024;

// A whole block group: growing less is what resize2fs has trouble with. Without data it takes no space.
const SMALLEST = 128 * MiB;

// mke2fs makes room for growing to 1,024 times the size; that is too little for a small one.
const GROWS_TO_BYTES = 1024 * GiB;

export interface TreeImage {
  readonly root: FolderNode;
  /** What the tree comes from, for messages. */
  readonly source: string;
  /** Where the image is to be. It must not exist. */
  readonly image: string;
  readonly sizeBytes: number | undefined;
  readonly mke2fsBin: string;
}

/** Rejects with `IMAGE_INVALID` for what ext4 cannot hold, `MKE2FS_FAILED`, `MKE2FS_NOT_FOUND`, or the system's code. */
export async function makeExt4(task: Task, request: TreeImage): Promise<void> {
  const { root, source, image, mke2fsBin } = request;
  const checkAborted = () => task.checkAborted();
  const plan = await planTree(root, source, checkAborted);
  const sizeBytes = request.sizeBytes ?? sizeFor(plan);
  await makeEmpty(task, image, plan, sizeBytes, mke2fsBin);
  try {
    await writeTree(image, plan, FIXED_TIME_NS, checkAborted);
  } catch (error) {
    if (!(error instanceof FilesystemFull)) throw error;
    throw new RootfsError(
      'MKE2FS_FAILED',
      `${source} does not fit into the ${sizeBytes} bytes that sizeBytes asks for: its files take ${plan.blocks * BLOCK_BYTES} ` +
        `bytes, and the file system its own. Leave sizeBytes out, or give ${sizeFor(plan)}`,
      { path: source },
    );
  }
}

/** With room for more: a quarter of it and 64 MiB, of which a journal takes some. */
function sizeFor(plan: TreePlan): number {
  const needed = plan.blocks * BLOCK_BYTES + inodesFor(plan, 0) * INODE_BYTES;
  return Math.max(SMALLEST, Math.ceil((needed * 1.25 + 64 * MiB) / MiB) * MiB);
}

function inodesFor({ lastInode }: TreePlan, sizeBytes: number): number {
  return Math.max(Math.ceil(lastInode * 1.25) + 32, Math.ceil(sizeBytes / BYTES_PER_INODE));
}

async function makeEmpty(
  { signal }: Task,
  image: string,
  plan: TreePlan,
  sizeBytes: number,
  mke2fsBin: string,
): Promise<void> {
  const extended = [
    `hash_seed=${HASH_SEED}`,
    'root_owner=0:0',
    // No thread in each guest that goes on making the file system.
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
  const mke2fs = { name: mke2fsBin, package: 'e2fsprogs', notFound: 'MKE2FS_NOT_FOUND' } as const;
  const exit = await runInstalled(mke2fs, args, signal, {
    env: { E2FSPROGS_FAKE_TIME: `${FIXED_TIME_S}`, MKE2FS_CONFIG: '/dev/null' },
  });
  if (exit.status !== 0) throw programFailed('MKE2FS_FAILED', mke2fsBin, image, exit);
}
