// Describes a store.
import { access, lstat, readdir, realpath, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { CLONE_ROOTFS_FILE, RootfsError } from '../../index.js';
import {
  DEFAULT_SNAPSHOTS_FOLDER,
  isOwnName,
  isStateEntry,
  STATE_FOLDER,
} from '../../system/state-folder.js';
import { mountOfImage, storeOf } from './find-store.js';
import { imageFile } from './image-file.js';
import { kindOf, type StoreKind } from './kinds.js';

export interface StoreStatus {
  readonly image: string;
  readonly fs: StoreKind;
  readonly sizeBytes: number;
  /** What its image takes on disk. Less than `sizeBytes`: not all of it is reserved. */
  readonly allocatedBytes: number;
  /** Null where it is not mounted, as all below. */
  readonly mountPoint: string | null;
  readonly device: string | null;
  readonly usedBytes: number | null;
  readonly freeBytes: number | null;
  readonly slots: number | null;
}

/** The clones are those in the clones folder if that lies in the store, and else in the store's root. */
export async function statusOfImage(image: string, clonesDir: string): Promise<StoreStatus> {
  const mounted = await mountOfImage(image);
  const file = await imageFile(image);
  const real = await realpath(image);
  if (mounted === undefined) {
    const fs = await kindOf(image);
    const none = { mountPoint: null, device: null, usedBytes: null, freeBytes: null, slots: null };
    return { image: real, fs, ...file, ...none };
  }
  const { mountPoint, device, kind } = mounted;
  const { blocks, bfree, bavail, bsize } = await statfs(mountPoint);
  const usedBytes = (blocks - bfree) * bsize;
  const holdsClones = (await storeOf(clonesDir))?.device === device;
  const slots = (await slotsIn(holdsClones ? clonesDir : mountPoint)).length;
  return { image: real, fs: kind, ...file, mountPoint, device, usedBytes, freeBytes: bavail * bsize, slots };
}

/** The status of the store that the clones folder lies in. */
export async function statusOfFolder(clonesDir: string): Promise<StoreStatus> {
  const store = await storeOf(clonesDir);
  if (store === undefined) {
    const words = `no store is mounted on ${clonesDir}, or on a folder above it`;
    throw new RootfsError('STORE_NOT_FOUND', words, { path: clonesDir });
  }
  return statusOfImage(store.image, clonesDir);
}

/** Slots and foreign files, and snapshots, which lie in our own folder unless another is configured. */
export async function userDataIn(folder: string): Promise<string[]> {
  const state = join(folder, STATE_FOLDER);
  const snapshotsDir = join(state, DEFAULT_SNAPSHOTS_FOLDER);
  const kept = await namesThere(snapshotsDir);
  const snapshots = kept.filter((name) => !isOwnName(name)).map((name) => `snapshot ${name}`);
  const strays = [
    ...(await straysIn(join(state, 'staging'))),
    ...(await straysIn(join(snapshotsDir, STATE_FOLDER, 'staging'))),
  ];
  // Our own folder holds nothing else that is of use without slots.
  const entries = (await readdir(folder)).filter((name) => !isOwnName(name));
  return [...entries, ...snapshots, ...strays, ...(await strangersIn(state))];
}

/** What somebody else put into our own folder, or into those of the folders in it. */
async function strangersIn(state: string): Promise<string[]> {
  const names = await namesThere(state);
  const strangers = names.filter((name) => !isStateEntry(name)).map((name) => join(state, name));
  const below = names.filter(isStateEntry).map((name) => strangersIn(join(state, name, STATE_FOLDER)));
  return [...strangers, ...(await Promise.all(below)).flat()];
}

/**
 * Slots and snapshots that a killed process took out by mistake, and `recover` puts back: each lies in its session's
 * folder as `<name>.<inode>`, with the inode of the folder that was meant.
 */
async function straysIn(staging: string): Promise<string[]> {
  const strays: string[] = [];
  for (const session of await namesThere(staging))
    for (const name of await namesThere(join(staging, session))) {
      const [, taken, inode] = /^(.+)\.([0-9a-f]+)$/.exec(name) ?? [];
      if (inode === undefined) continue;
      const { ino } = await lstat(join(staging, session, name), { bigint: true });
      if (ino !== BigInt(`0x${inode}`)) strays.push(`${taken}, which recover puts back`);
    }
  return strays;
}

async function namesThere(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw error;
  });
}

async function slotsIn(folder: string): Promise<string[]> {
  const slots: string[] = [];
  for (const name of await namesThere(folder)) {
    const image = join(folder, name, CLONE_ROOTFS_FILE);
    if (
      await access(image).then(
        () => true,
        () => false,
      )
    )
      slots.push(name);
  }
  return slots;
}
