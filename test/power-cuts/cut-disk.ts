// A disk whose power can be cut at any moment. It lies in an image file on an XFS that can reflink: a reflink of that
// file, taken while the file system is mounted and in use, is what the disk would hold if the power had gone at that
// moment. Mounting it replays the journal.
//
// All that the kernel had handed to the disk counts as written, in the order that it was handed over: a disk that loses
// or reorders what it acknowledged without a flush is not modelled.
import { execFileSync } from 'node:child_process';
import {
  constants,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Workspace } from '../fixtures/filesystems.js';
import { GiB, MiB } from '../fixtures/images.js';

export type DiskKind = 'XFS' | 'XFS without reflink' | 'btrfs' | 'ext4';

const MAKE = {
  XFS: ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'],
  'XFS without reflink': ['mkfs.xfs', '-q', '-f', '-m', 'reflink=0'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
  ext4: ['mke2fs', '-q', '-F', '-t', 'ext4'],
} as const;

const DISK_BYTES = 320 * MiB;

export class CutDisk {
  /** Where it is mounted, always at the same place: some of what the library keeps on disk holds paths. */
  readonly path: string;
  readonly #folder: string;
  #cuts = 0;

  private constructor(folder: string, path: string) {
    this.#folder = folder;
    this.path = path;
  }

  /** `prepare` fills the disk that every history starts with. */
  static async make(
    workspace: Workspace,
    kind: DiskKind,
    prepare: (path: string) => Promise<void>,
  ): Promise<CutDisk> {
    const name = kind.replaceAll(' ', '-');
    const folder = workspace.disk(`host-of-${name}`, ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1'], 16 * GiB);
    workspace.image(`host-of-${name}/first`, MAKE[kind], DISK_BYTES);
    const disk = new CutDisk(folder, join(folder, 'mounted'));
    mkdirSync(disk.path);
    disk.#mount('first.img');
    await prepare(disk.path);
    await disk.#unmount();
    return disk;
  }

  /** The disk as `prepare` left it, mounted while `work` runs. */
  async fresh<T>(work: () => Promise<T>): Promise<T> {
    this.#reflink('first.img', 'work.img');
    return this.#mounted('work.img', work);
  }

  /** Cuts the power, as far as the copy that is returned is concerned. */
  cut(): string {
    const copy = `cut-${this.#cuts++}.img`;
    this.#reflink('work.img', copy);
    return copy;
  }

  /** Power is back: what lies on the disk that `cut` returned, mounted in the place of the old one. */
  async restarted<T>(copy: string, work: () => Promise<T>): Promise<T> {
    return this.#mounted(copy, () => {
      this.#startAnotherBoot();
      return work();
    });
  }

  /** The kernel still is the same, so this boot's marks of copied slots are made those of another. */
  #startAnotherBoot(): void {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'ascii').trim();
    for (const name of readdirSync(this.path, { recursive: true, encoding: 'utf8' })) {
      const mark = join(this.path, name);
      if (!name.endsWith('.unsettled') || readFileSync(mark, 'ascii') !== boot) continue;
      writeFileSync(mark, '00000000-0000-4000-8000-000000000000');
    }
  }

  async #mounted<T>(image: string, work: () => Promise<T>): Promise<T> {
    this.#mount(image);
    try {
      return await work();
    } finally {
      await this.#unmount();
      rmSync(join(this.#folder, image));
    }
  }

  #reflink(from: string, to: string): void {
    copyFileSync(join(this.#folder, from), join(this.#folder, to), constants.COPYFILE_FICLONE_FORCE);
  }

  #mount(image: string): void {
    execFileSync('mount', ['-o', 'loop', join(this.#folder, image), this.path], { stdio: 'pipe' });
  }

  /** A descriptor that was just closed elsewhere can keep a file system busy for a moment. */
  async #unmount(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        execFileSync('umount', [this.path], { stdio: 'pipe' });
        return;
      } catch (error) {
        if (attempt === 50) throw error;
        await sleep(10);
      }
    }
  }
}
