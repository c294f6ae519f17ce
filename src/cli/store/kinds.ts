// The file systems that a store can have, and how they differ.
import { open } from 'node:fs/promises';
import { RootfsError } from '../../index.js';

export const STORE_KINDS = ['xfs', 'btrfs'] as const;
export type StoreKind = (typeof STORE_KINDS)[number];

interface KindOfStore {
  readonly minimumBytes: number;
  /** A program and its arguments, with the image to come after them. */
  readonly make: readonly [string, ...string[]];
  readonly check: readonly [string, ...string[]];
  /** With the folder that it is mounted on to come after them. */
  readonly grow: readonly [string, ...string[]];
  readonly repair: string;
  /** Options of a mount that only looks into it. */
  readonly lookOptions: readonly string[];
  /** What marks such an image, and where. */
  readonly magic: { readonly text: string; readonly offset: number };
}

export const KINDS: Readonly<Record<StoreKind, KindOfStore>> = {
  xfs: {
    // The minimum of mkfs.xfs.
    minimumBytes: 300 * 1024 ** 2,
    // -K keeps the reserved space.
    make: ['mkfs.xfs', '-q', '-K', '-m', 'reflink=1'],
    check: ['xfs_repair', '-f', '-n'],
    grow: ['xfs_growfs'],
    repair: 'xfs_repair -f',
    // Otherwise a copy of a mounted store cannot be mounted.
    lookOptions: ['nouuid'],
    magic: { text: 'XFSB', offset: 0 },
  },
  btrfs: {
    // It needs 109 MiB, because it stores metadata twice.
    minimumBytes: 128 * 1024 ** 2,
    make: ['mkfs.btrfs', '-q', '-K'],
    check: ['btrfs', 'check', '--readonly'],
    grow: ['btrfs', 'filesystem', 'resize', 'max'],
    repair: 'btrfs check --repair',
    lookOptions: [],
    magic: { text: '_BHRfS_M', offset: 0x10040 },
  },
};

/** What an image holds. Throws `STORE_INVALID` for anything but a store's file system. */
export async function kindOf(image: string): Promise<StoreKind> {
  const file = await open(image, 'r');
  try {
    for (const kind of STORE_KINDS) {
      const { text, offset } = KINDS[kind].magic;
      const { buffer } = await file.read(Buffer.alloc(text.length), 0, text.length, offset);
      if (buffer.toString('latin1') === text) return kind;
    }
  } finally {
    await file.close();
  }
  throw new RootfsError('STORE_INVALID', `${image} holds neither XFS nor btrfs, so it is not a store`, {
    path: image,
  });
}
