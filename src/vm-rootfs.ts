import type { Strategy } from './native.js';

/** A way that was tried and left. */
export interface Attempt {
  /** A rung of the ladder, or `seal`: no sealed image could be made, the clone came straight from the template. */
  readonly strategy: Strategy | 'seal';
  /** What it failed with, in Node's spelling (`ENOTSUP`, `EXDEV`, …); `SHORT` if the clone came out shorter than its source. */
  readonly code: string;
}

/** A VM's own root disk. */
export interface VmRootfs {
  /** The sanitised id: the name of the slot's folder. */
  readonly vmId: string;
  readonly stack: string;
  /** The image to give to the VM. */
  readonly path: string;
  /** The template's SHA-256 when the clone was made. */
  readonly sourceSha256: string;
  /** Length of the image. */
  readonly sizeBytes: number;
  /** How the clone was made. Of a slot that was there already: as far as the disk tells. */
  readonly strategy: Strategy;
  /** The image **is** the template, under another name: a guest that writes to it changes the template. */
  readonly sharesTemplateInode: boolean;
  /** The slot was there already. */
  readonly reused: boolean;
  /** It was made beforehand: see `prewarm`. */
  readonly pooled: boolean;
  /** Ways that were left before one served, in order; none for a slot that was there already. */
  readonly attempts: readonly Attempt[];
}
