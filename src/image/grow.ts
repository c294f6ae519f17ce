// Grows an ext4 image, first the file and then the file system in it.
import { stat, truncate } from 'node:fs/promises';
import { native } from '../addon/native.js';
import {
  absolutePath,
  optionalSignal,
  programPath,
  readOptions,
  requireSizeBytes,
} from '../system/arguments.js';
import { DEFAULT_E2FSCK_BIN, DEFAULT_RESIZE2FS_BIN } from '../system/config.js';
import { asRootfsError, failedWith, invalidArgument, RootfsError } from '../system/errors.js';
import { traced } from '../system/events.js';
import { checkFilesystem, resize2fs } from './e2fsprogs.js';
import { type Ext4Superblock, readSuperblock, superblockBytes } from './ext4.js';
import { HeldImage, refuseInUse } from './held-image.js';
import { inUseError } from './open-elsewhere.js';
import { requireNoMmp } from './require-no-mmp.js';

export interface GrowPrograms {
  readonly resize2fsBin: string;
  readonly e2fsckBin: string;
}

export interface ResizeOptions extends Partial<GrowPrograms> {
  /** Aborting kills `resize2fs`, which leaves the image damaged: do so only if you can discard the image. */
  readonly signal?: AbortSignal;
}

/**
 * Grows an ext4 image and its file system to `targetBytes`. An image of that size whose file system fills it is left
 * alone. The image is changed in place and must not be in use, which is looked at again before each change. After a
 * failure the file has its old length, unless `resize2fs` had begun its work: the file may then be longer than its file
 * system, and the same call finishes the job. Programs get the file as `/proc/self/fd/3`, not by its name.
 *
 * Rejects with `IMAGE_INVALID` (it holds no ext4 file system, or one with `mmp`), `SHRINK_REFUSED`, `SLOT_IN_USE` (a
 * process has the image open), `SLOT_BUSY` (meanwhile `path` became another file, which is not changed), `SHARED_INODE`
 * (it has several hardlinks), `TEMPLATE_CORRUPT` (its filesystem is longer than its file), `RESIZE_FAILED` and
 * `E2FSCK_FAILED` (with exit status and stderr), `RESIZE2FS_NOT_FOUND` and `E2FSCK_NOT_FOUND`, `INVALID_ARGUMENT`,
 * `ABORT_ERR`, or the system's code.
 */
export async function resizeExt4Image(
  path: string,
  targetBytes: number,
  options: ResizeOptions = {},
): Promise<void> {
  const image = absolutePath('path', path);
  requireSizeBytes('targetBytes', targetBytes);
  const given = readOptions('options', options, ['resize2fsBin', 'e2fsckBin', 'signal']);
  const what = `growing ${image} to ${targetBytes} bytes`;
  const signal = optionalSignal(what, given.signal);
  const programs = {
    resize2fsBin: programPath('resize2fsBin', given.resize2fsBin ?? DEFAULT_RESIZE2FS_BIN),
    e2fsckBin: programPath('e2fsckBin', given.e2fsckBin ?? DEFAULT_E2FSCK_BIN),
  };
  try {
    if (!(await mayGrow(image, targetBytes))) return;
    await HeldImage.hold(image, (held) => growHeld(held, targetBytes, programs, signal));
  } catch (error) {
    throw asRootfsError(what, error);
  }
}

/** Whether there is something to grow. Throws if the image is in use. */
async function mayGrow(path: string, targetBytes: number): Promise<boolean> {
  try {
    if ((await toGrow({ path, name: path, reached: path }, targetBytes)) === undefined) return false;
    await refuseInUse(path);
    return true;
  } catch (error) {
    // A process that keeps a lease on the image has it open.
    throw failedWith(error, 'EAGAIN') ? inUseError(path) : error;
  }
}

/**
 * An image by its path, what it is called in messages, and where this process reaches it. One that others can reach
 * is held.
 */
type Image = HeldImage | { readonly path: string; readonly name: string; readonly reached: string };

const heldFile = (image: Image) => (image instanceof HeldImage ? image : undefined);

/** The file system that has to grow, if any. Throws if it cannot. */
async function toGrow({ name, reached }: Image, targetBytes: number): Promise<Ext4Superblock | undefined> {
  const file = await stat(reached);
  if (!file.isFile()) {
    const message = `${name} is not a regular file: it cannot be grown`;
    throw invalidArgument(message, { path: name });
  }
  const { size } = file;
  if (targetBytes < size) throw shrinkRefusedError(name, size, targetBytes);
  const superblock = await readSuperblock(reached);
  if (superblock === undefined) {
    // A template of another kind has its own size, which may be asked for.
    if (targetBytes === size) return undefined;
    throw new RootfsError(
      'IMAGE_INVALID',
      `there is no ext4 file system in ${name}: only an image of one, without partitions, can be grown`,
      { path: name },
    );
  }
  if (superblock.sizeBytes > size) {
    throw new RootfsError(
      'TEMPLATE_CORRUPT',
      `the filesystem in ${name} says it has ${superblock.sizeBytes} bytes, but the file has ${size}: it ` +
        'was truncated; make the image again',
      { path: name },
    );
  }
  const isGrown = targetBytes === size && superblock.checksumMatches && (await native().fillsImage(reached));
  if (isGrown) return undefined;
  requireNoMmp(superblock, name);
  return superblock;
}

export function shrinkRefusedError(path: string, sizeBytes: number, targetBytes: number): RootfsError {
  return new RootfsError(
    'SHRINK_REFUSED',
    `${path} has ${sizeBytes} bytes, ${targetBytes} were requested: a resize-down would lose data`,
    { path },
  );
}

/**
 * Grows an image that only the caller uses: a private copy of a template, for example. `source` is what it is a copy
 * of, for messages.
 */
export function growImage(
  path: string,
  targetBytes: number,
  programs: GrowPrograms,
  signal: AbortSignal | undefined,
  source?: string,
): Promise<void> {
  return growHeld({ path, name: source ?? path, reached: path }, targetBytes, programs, signal);
}

async function growHeld(
  image: Image,
  targetBytes: number,
  programs: GrowPrograms,
  signal: AbortSignal | undefined,
): Promise<void> {
  const superblock = await toGrow(image, targetBytes);
  if (superblock === undefined) return;
  await traced({ operation: 'grow', path: image.path, bytes: targetBytes }, () =>
    growNow(image, targetBytes, superblock, programs, signal),
  );
}

async function growNow(
  image: Image,
  targetBytes: number,
  superblock: Ext4Superblock,
  programs: GrowPrograms,
  signal: AbortSignal | undefined,
): Promise<void> {
  const timeS = Math.max(1, superblock.lastUsedS);
  const { path, name } = image;
  const check = { name, env: { E2FSCK_TIME: `${timeS}` }, file: heldFile(image) };
  if (superblock.needsCheck || !superblock.checksumMatches)
    await checkFilesystem(path, programs.e2fsckBin, signal, check);
  const grow = (size?: string) =>
    resize2fs(programs.resize2fsBin, { path, name, file: heldFile(image), timeS, size }, signal);
  await orOldLength(image, async () => {
    // toGrow has refused to shrink it. Without a size, resize2fs uses the file's length.
    await setLength(image, targetBytes);
    const firstStep = stepBefore(superblock, targetBytes);
    if (firstStep !== undefined) {
      await grow(`${firstStep / 1024}K`);
      await setLength(image, targetBytes);
    }
    await grow();
    // resize2fs truncates the file where its file system ends, at a whole block.
    await setLength(image, targetBytes);
  });
  await requireGrown(image, targetBytes);
  if (superblock.needsCheckAfterGrowing) {
    const advice = name === path ? '' : adviceAfterGrowing(name, targetBytes);
    await checkFilesystem(path, programs.e2fsckBin, signal, { ...check, advice });
  }
}

async function setLength(image: Image, sizeBytes: number): Promise<void> {
  await heldFile(image)?.requireOurs();
  await truncate(image.reached, sizeBytes);
}

/**
 * If `work` fails before resize2fs has moved anything, the file gets its old length back. resize2fs changes the
 * superblock first: it sets EXT2_ERROR_FS (resize_fs() in e2fsprogs).
 */
async function orOldLength(image: Image, work: () => Promise<void>): Promise<void> {
  const { size } = await stat(image.reached);
  const before = await superblockBytes(image.reached);
  try {
    await work();
  } catch (error) {
    try {
      if (before.equals(await superblockBytes(image.reached))) await setLength(image, size);
    } catch {
      // The first failure says more.
    }
    throw error;
  }
}

/**
 * resize2fs 1.47 damages an image smaller than one block group if that image needs more group descriptors than were
 * reserved ("Illegal doubly indirect block"). An image that fills its first group is safe, so grow to that size first.
 */
function stepBefore(superblock: Ext4Superblock, targetBytes: number): number | undefined {
  const small = superblock.sizeBytes < superblock.groupSizeBytes;
  return small && targetBytes > superblock.reservedSizeBytes ? superblock.groupSizeBytes : undefined;
}

/** resize2fs 1.47 does not notice that it could not write the superblock. */
async function requireGrown({ name, reached }: Image, targetBytes: number): Promise<void> {
  const grown = await readSuperblock(reached);
  // resize2fs leaves out a last block group that is too small for its own tables.
  if (
    grown?.checksumMatches &&
    grown.sizeBytes <= targetBytes &&
    targetBytes - grown.sizeBytes < grown.groupSizeBytes
  )
    return;
  const found =
    grown?.checksumMatches === false
      ? 'a superblock that does not match its checksum'
      : `${grown?.sizeBytes ?? 'no'} bytes rather than ${targetBytes}`;
  throw new RootfsError(
    'RESIZE_FAILED',
    `resize2fs reported success on ${name}, but the filesystem has ${found}`,
    { path: name },
  );
}

/** Advice for damage in a grown copy of `name`. A template that nobody published was never checked itself. */
export function adviceAfterGrowing(name: string, sizeBytes: number): string {
  return (
    `; this is in a copy that resize2fs grew to ${sizeBytes} bytes: if e2fsck -fn ${name} finds nothing, resize2fs ` +
    'cannot grow such a file system, so make the image with that size or with fewer features, or set a newer ' +
    'resize2fs; else mend the image'
  );
}
