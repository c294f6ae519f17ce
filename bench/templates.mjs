// Templates to clone from. Every one is flushed, so that no clone has to write somebody's dirty pages first.
import { randomFillSync } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { seededRandom } from './alternate.mjs';
import { output, run } from './command.mjs';

const MiB = 2 ** 20;
const ZFS_SUPER_MAGIC = 0x2fc12fc1;

/**
 * An ext4 image as image builders make it: filled through a loop mount in several goes, with files deleted, replaced
 * and appended to in between, and written back by the kernel as it likes. On ZFS, where a loop device may hang, it is
 * a copy of one that was made elsewhere.
 * @param {string} path
 * @param {{ sizeBytes: number, dataBytes: number }} size
 * @param {string} elsewhere a folder on a file system that can carry a loop device
 */
export async function makeRealisticImage(path, size, elsewhere) {
  if (statfsSync(dirname(path)).type !== ZFS_SUPER_MAGIC) return fillImage(path, size);
  const folder = mkdtempSync(join(elsewhere, 'image-'));
  const made = join(folder, 'image');
  await fillImage(made, size);
  await run('cp', ['--sparse=always', made, path]);
  rmSync(folder, { recursive: true });
  await run('sync', [path]);
}

/**
 * @param {string} path
 * @param {{ sizeBytes: number, dataBytes: number }} size
 */
async function fillImage(path, { sizeBytes, dataBytes }) {
  await makeEmptyImage(path, sizeBytes);
  const mountPoint = `${path}.mnt`;
  mkdirSync(mountPoint);
  await run('mount', ['-o', 'loop', path, mountPoint]);
  await fillByRewriting(mountPoint, dataBytes);
  await run('umount', [mountPoint]);
  rmSync(mountPoint, { recursive: true });
  await run('sync', [path]);
}

/**
 * An ext4 image with its blocks in one piece, none missing.
 * @param {string} path
 * @param {number} sizeBytes
 */
export async function makeContiguousImage(path, sizeBytes) {
  const sparse = `${path}.sparse`;
  await makeEmptyImage(sparse, sizeBytes);
  // Reserved first, since a direct write alone may be spread over what free space there is.
  await run('fallocate', ['-l', String(sizeBytes), path]);
  await run('dd', [
    `if=${sparse}`,
    `of=${path}`,
    `bs=${sizeBytes}`,
    'oflag=direct',
    'conv=notrunc,fsync',
    'status=none',
  ]);
  rmSync(sparse);
}

/**
 * `dataBytes` in runs of 4 MiB, spread evenly.
 * @param {string} path
 * @param {{ sizeBytes: number, dataBytes: number }} size
 */
export async function makeSparseFile(path, { sizeBytes, dataBytes }) {
  const runBytes = 4 * MiB;
  const runs = dataBytes / runBytes;
  const stride = Math.floor(sizeBytes / runs / 4096) * 4096;
  const fd = openSync(path, 'wx');
  ftruncateSync(fd, sizeBytes);
  const data = randomFillSync(Buffer.alloc(runBytes));
  for (let i = 0; i < runs; i++) writeSync(fd, data, 0, runBytes, i * stride);
  fsyncSync(fd);
  closeSync(fd);
}

/**
 * @param {string} path
 * @param {number} sizeBytes
 */
async function makeEmptyImage(path, sizeBytes) {
  await output('mke2fs', ['-q', '-F', '-t', 'ext4', path, `${sizeBytes / 1024}k`]);
}

/**
 * @param {string} folder
 * @param {number} dataBytes
 */
async function fillByRewriting(folder, dataBytes) {
  const random = seededRandom(2);
  const pool = randomFillSync(Buffer.alloc(8 * MiB));
  /** @type {string[]} */
  const files = [];
  let written = 0;
  for (let go = 0; written < dataBytes; go++) {
    for (let bytes = 0; bytes < dataBytes / 8; ) {
      // Sizes as in a root file system: most of a few KiB, some of MiB.
      const size = Math.min(pool.length, Math.floor(1024 * 2 ** (random() ** 2 * 13)));
      const path = join(folder, `d${files.length % 40}`, `f${files.length}`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, pool.subarray(0, size));
      files.push(path);
      bytes += size;
      written += size;
    }
    await run('sync', ['-f', folder]);
    for (const path of files) {
      const fate = random();
      if (fate < 0.15) rmSync(path, { force: true });
      else if (fate < 0.25)
        writeFileSync(path, pool.subarray(0, Math.floor(random() * 256 * 1024)), { flag: 'a' });
    }
    if (go % 2 === 1) await run('sync', ['-f', folder]);
  }
}
