import type { Attempt } from '../addon/attempts.js';
import type { Template } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { imagePath } from '../slot/stamps.js';
import type { Strategy } from '../system/strategy.js';
import type { CloneRequest } from './clone-plan.js';

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
