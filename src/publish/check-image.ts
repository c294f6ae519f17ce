// Checks an image before it appears in the catalog.

import { chmod, stat } from 'node:fs/promises';
import { native } from '../addon/native.js';
import { checkFilesystem, checkFilesystemClean } from '../image/e2fsprogs.js';
import { type Ext4Superblock, readSuperblock } from '../image/ext4.js';
import { hashSource } from '../image/hash.js';
import { requireNoMmp } from '../image/require-no-mmp.js';
import { RootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import type { Task } from '../system/task.js';
import { formatOf, isCompression } from './image-format.js';
import { describeByFooter, describeByHead, describeOther, FETCH } from './other-formats.js';
import type { PublishOptions } from './publish-options.js';

// `mke2fs -O quota -d`, for one, makes images that are not clean.
const MEND = '; mend a copy of the image with e2fsck -fy and publish that, or create it again';

interface UncheckedImage {
  readonly image: string;
  /** Used in messages. */
  readonly source: string;
  /** The mode that it gets. */
  readonly mode: number;
}

/** Replays the journal if needed, checks and flushes the image, sets its mode and returns its digest. */
export async function finishImage(
  task: Task,
  e2fsckBin: string,
  { image, source, mode }: UncheckedImage,
  { expectedSha256, onProgress }: PublishOptions,
): Promise<string> {
  const hash = () => hashImage(task, image, onProgress);
  const hashExpected = async () => requireExpected(await hash(), expectedSha256, source);
  const { needsCheck, lastUsedS } = await requireWhole(image, source).catch(async (error: unknown) => {
    // A wrong digest explains more than the errors that follow from it.
    if (expectedSha256 !== undefined) await hashExpected();
    throw error;
  });
  if (needsCheck) {
    if (expectedSha256 !== undefined) await hashExpected();
    // Keep the last-use time fixed, so that the same image always has the same bytes.
    const env = { E2FSCK_TIME: `${Math.max(1, lastUsedS)}` };
    await checkFilesystem(image, e2fsckBin, task.signal, { name: source, env, advice: MEND });
  }
  const [sha256] = await allOf([
    needsCheck ? hash() : hashExpected(),
    checkFilesystemClean(image, e2fsckBin, task.signal, { name: source, advice: MEND }),
    flush(image),
  ]);
  await chmod(image, mode);
  await flush(image);
  return sha256;
}

function requireExpected(received: string, expected: string | undefined, source: string): string {
  if (expected === undefined || received === expected) return received;
  throw new RootfsError(
    'DIGEST_MISMATCH',
    `the image in ${source} has the SHA-256 ${received} rather than ${expected}: get it again, ` +
      'or correct the digest',
    { path: source },
  );
}

async function requireWhole(image: string, source: string): Promise<Ext4Superblock> {
  const superblock = await readSuperblock(image);
  if (superblock === undefined) throw await noFilesystem(image, source);
  const { size } = await stat(image);
  const other =
    (await describeByHead(image)) ??
    (size > superblock.sizeBytes ? await describeByFooter(image, size) : undefined);
  if (other !== undefined)
    throw new RootfsError('IMAGE_INVALID', `${source} is ${other.name}: ${other.remedy}`, { path: source });
  if (superblock.sizeBytes > size) {
    throw new RootfsError(
      'TEMPLATE_CORRUPT',
      `the filesystem in ${source} says it has ${superblock.sizeBytes} bytes, but the image has ${size}: ` +
        'it was cut off; get it again',
      { path: source },
    );
  }
  if (superblock.isJournal) {
    throw new RootfsError(
      'IMAGE_INVALID',
      `${source} is the journal of an ext4 file system on another device: publish that file system`,
      { path: source },
    );
  }
  if (superblock.hasOtherJournal) {
    throw new RootfsError(
      'IMAGE_INVALID',
      `the filesystem in ${source} has its journal on another device: move it inside with tune2fs -O ^has_journal ` +
        'and tune2fs -j, on the host that has both',
      { path: source },
    );
  }
  requireNoMmp(superblock, source);
  return superblock;
}

/** The error for what does not begin like ext4. `image` may be the start of it only. */
export async function noFilesystem(image: string, source: string): Promise<RootfsError> {
  const other = await describeOther(image);
  return new RootfsError(
    'IMAGE_INVALID',
    `there is no ext4 file system in ${source}: ${
      other === undefined
        ? 'publish an image of the file system itself, without partitions, or a folder or tar'
        : `it is ${other.name}; ${other.remedy === FETCH ? '' : await unwrapping(source)}${other.remedy}`
    }`,
    { path: source },
  );
}

/** What comes first where the disk is within another file: no other program reads it there. */
async function unwrapping(source: string): Promise<string> {
  const format = await formatOf(source).catch(() => 'raw' as const);
  if (isCompression(format)) return `decompress it with ${format} -d, and `;
  return format === 'qcow2' ? 'convert it with qemu-img convert -O raw, and ' : '';
}

async function hashImage(
  task: Task,
  image: string,
  onProgress: PublishOptions['onProgress'],
): Promise<string> {
  const { source, info } = await native().openSource(image);
  try {
    return await hashSource(task, source, info.identity.sizeBytes, (progress) =>
      onProgress?.({ step: 'hash', ...progress }),
    );
  } finally {
    native().dispose(source);
  }
}

/**
 * Waits for all of them before it rejects, so that nothing still uses a file that is about to be removed. It rejects
 * with the error of the first that failed, in the order of the list.
 */
async function allOf<T extends readonly unknown[]>(work: { [K in keyof T]: Promise<T[K]> }): Promise<T> {
  const settled = await Promise.allSettled(work);
  for (const result of settled) if (result.status === 'rejected') throw result.reason;
  return Promise.all(work) as unknown as Promise<T>;
}
