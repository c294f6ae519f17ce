// Making an ext4 image of a tree, the same one each time, and one that can grow far.
import { resolve } from 'node:path';
import { programFailed, runInstalled } from '../system/programs.js';
import { normaliseInodes } from './normalise-inodes.js';
import { TREE_BLOCK_BYTES, type TreeSurvey } from './tree-survey.js';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;

export const BLOCK_BYTES = TREE_BLOCK_BYTES;

/** 1980-01-01: what has no time of its own in the tree. */
export const FIXED_TIME_S = 315_532_800;

// All clones of a template have the same ones anyway.
const FILESYSTEM_UUID = '6d766d72-6f6f-4466-8000-000000000001';
const HASH_SEED = '6d766d72-6f6f-4466-8000-000000000002';

// Given in full, and mke2fs.conf kept out of it: else the image would depend on the distribution. All of them are known to Linux 4.14, so to
// every guest kernel that a VMM of today starts.
const FEATURES =
  'none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum';

const INODE_BYTES = 256;
const BYTES_PER_INODE = 16 * 1024;

// A whole block group: growing less is what resize2fs has trouble with. Without data it takes no space.
const SMALLEST = 128 * MiB;

// mke2fs makes room for growing to 1,024 times the size; that is too little for a small one.
const GROWS_TO_BYTES = 1024 * GiB;

/** For a tree, with room for more: a quarter of it and 64 MiB, of which a journal takes some. */
export function sizeFor(tree: TreeSurvey): number {
  const needed = tree.blocks * BLOCK_BYTES + inodesFor(tree, 0) * INODE_BYTES;
  return Math.max(SMALLEST, Math.ceil((needed * 1.25 + 64 * MiB) / MiB) * MiB);
}

function inodesFor(tree: TreeSurvey, sizeBytes: number): number {
  return Math.max(Math.ceil(tree.inodes * 1.25) + 32, Math.ceil(sizeBytes / BYTES_PER_INODE));
}

/** `image` must not exist. Rejects with `MKE2FS_FAILED`, `MKE2FS_NOT_FOUND`, or the system's code. */
export async function makeExt4(
  image: string,
  folder: string,
  tree: TreeSurvey,
  sizeBytes: number,
  mke2fsBin: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const extended = [
    `hash_seed=${HASH_SEED}`,
    'root_owner=0:0',
    // No thread in each guest that goes on making the filesystem.
    'lazy_itable_init=0',
    'lazy_journal_init=0',
    'nodiscard',
    ...(sizeBytes < GROWS_TO_BYTES / 1024 ? [`resize=${GROWS_TO_BYTES / BLOCK_BYTES}`] : []),
  ];
  const args = [
    ...['-q', '-F', '-b', `${BLOCK_BYTES}`, '-I', `${INODE_BYTES}`, '-m', '0', '-L', 'rootfs'],
    ...['-N', `${inodesFor(tree, sizeBytes)}`, '-O', FEATURES, '-U', FILESYSTEM_UUID],
    ...['-E', extended.join(','), '-d', resolve(folder), resolve(image), `${sizeBytes / BLOCK_BYTES}`],
  ];
  const mke2fs = { name: mke2fsBin, package: 'e2fsprogs', notFound: 'MKE2FS_NOT_FOUND' } as const;
  const exit = await runInstalled(mke2fs, args, signal, {
    env: {
      E2FSPROGS_FAKE_TIME: `${FIXED_TIME_S}`,
      MKE2FS_CONFIG: '/dev/null',
      // Would put another time in the place of newer ones in the tree.
      SOURCE_DATE_EPOCH: undefined,
    },
  });
  if (exit.status !== 0) {
    const advice = `; ${sizeBytes} bytes may be too few for ${folder}: give another sizeBytes`;
    throw programFailed('MKE2FS_FAILED', mke2fsBin, image, exit, advice);
  }
  await normaliseInodes(image, FIXED_TIME_S);
}
