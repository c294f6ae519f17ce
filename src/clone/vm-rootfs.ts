// What a clone resolves with.

import { type Attempt, attemptsOf } from '../addon/attempts.js';
import type { Built } from '../addon/native.js';
import type { Template } from '../catalog/template.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { imagePath } from '../slot/stamps.js';
import type { Strategy } from '../system/strategy.js';
import type { CloneRequest, PreparedClone } from './clone-plan.js';

/** A VM's own root disk. */
export interface VmRootfs {
  /** The slot's name: the id with every character outside `A-Za-z0-9_-` replaced. */
  readonly vmId: string;
  readonly stack: string;
  /** The path of the image to give to the VM. */
  readonly path: string;
  /** The template's SHA-256 when the clone was made. */
  readonly sourceSha256: string;
  /** The length of the image. */
  readonly sizeBytes: number;
  /** How the clone was made. For an existing slot, this is derived from what is on disk. */
  readonly strategy: Strategy;
  /** The image **is** the template, by a hardlink: a guest that writes to it changes the template. */
  readonly sharesTemplateInode: boolean;
  /** The slot existed already. */
  readonly reused: boolean;
  /** The slot came from the pool: see `prewarm`. */
  readonly pooled: boolean;
  /** The rungs that failed before one served, in order. Empty for an existing slot. */
  readonly attempts: readonly Attempt[];
}

const NONE: readonly Attempt[] = Object.freeze([]);

export function vmRootfs(
  folder: ManagedFolder,
  request: CloneRequest,
  template: Template,
  made: Pick<VmRootfs, 'sizeBytes' | 'strategy' | 'reused'> & {
    pooled?: boolean;
    attempts?: readonly Attempt[];
  },
): VmRootfs {
  return {
    vmId: request.vm.safe,
    stack: request.stack,
    path: imagePath(folder, request.vm),
    sourceSha256: template.sha256,
    sizeBytes: made.sizeBytes,
    strategy: made.strategy,
    sharesTemplateInode: made.strategy === 'hardlink',
    reused: made.reused,
    pooled: made.pooled ?? false,
    attempts: made.attempts ?? NONE,
  };
}

/** The result for a clone that was just made. */
export function builtRootfs(
  folder: ManagedFolder,
  { request, template, attempts }: PreparedClone,
  built: Built,
): VmRootfs {
  return vmRootfs(folder, request, template, {
    sizeBytes: request.sizeBytes ?? template.identity.sizeBytes,
    strategy: built.strategy,
    reused: false,
    attempts: [...attempts, ...attemptsOf(built.attempts)],
  });
}

/** What is being done, as errors begin. */
export function describeClone(folder: ManagedFolder, { templatePath, vm }: CloneRequest): string {
  return `cloning ${templatePath} to ${imagePath(folder, vm)}`;
}
