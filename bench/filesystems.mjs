// Real file systems on loop devices. They are mounted in a mount namespace of this process's own, so they go with it,
// even after SIGKILL.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { output, run } from './command.mjs';

/** @typedef {'xfs' | 'btrfs' | 'ext4'} Filesystem */

/**
 * Where to measure.
 * @typedef {object} Place
 * @property {string} path an empty folder
 * @property {() => Promise<void>} leave
 */

/** @type {Filesystem[]} */
export const FILESYSTEMS = ['xfs', 'btrfs', 'ext4'];

// Sparse: a full run writes about 3 GiB to each.
const IMAGE_BYTES = 32 * 2 ** 30;
/** Names the folder of the run, in the mount namespace. */
export const INSIDE = 'MICROVM_ROOTFS_BENCH_FOLDER';

const MAKE = {
  xfs: ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
  ext4: ['mke2fs', '-q', '-F', '-t', 'ext4'],
};

/**
 * Runs this very program again in a mount namespace of its own, with a temporary folder that goes with it.
 * @param {string} parent where to make the folder
 * @returns {string} the folder, in the program that was run again; the first one does not return
 */
export function enterNamespace(parent) {
  const inside = process.env[INSIDE];
  if (inside !== undefined) return inside;
  if (process.getuid?.() !== 0) {
    console.error('The benchmark mounts file systems of its own: run it as root.');
    process.exit(1);
  }
  const folder = mkdtempSync(join(parent, 'microvm-rootfs-bench-'));
  process.on('SIGINT', () => {}); // the inner one gets it too, and this one cleans up after it
  const { status, error } = spawnSync(
    'unshare',
    ['--mount', '--propagation', 'private', process.execPath, ...process.execArgv, ...process.argv.slice(1)],
    { stdio: 'inherit', env: { ...process.env, [INSIDE]: folder } },
  );
  rmSync(folder, { recursive: true, force: true });
  if (error !== undefined) console.error(`unshare: ${error.message}`);
  process.exit(status ?? 1);
}

/**
 * @param {Filesystem} kind
 * @param {string} folder
 * @returns {Promise<Place>}
 */
export async function mountNew(kind, folder) {
  const image = join(folder, `${kind}.img`);
  const mountPoint = join(folder, kind);
  writeFileSync(image, '');
  truncateSync(image, IMAGE_BYTES);
  mkdirSync(mountPoint);
  const [program, ...args] = MAKE[kind];
  await output(/** @type {string} */ (program), [...args, image]);
  await run('mount', ['-o', 'loop', image, mountPoint]);
  rmSync(image); // the loop device holds it; its space goes with the mount
  return { path: mountPoint, leave: () => run('umount', [mountPoint]) };
}

/**
 * On a file system that is mounted already.
 * @param {string} folder
 * @returns {Promise<Place>}
 */
export async function newFolderIn(folder) {
  const path = mkdtempSync(join(folder, 'microvm-rootfs-bench-'));
  return { path, leave: () => rm(path, { recursive: true }) };
}
