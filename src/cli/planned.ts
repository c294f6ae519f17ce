// Methods of the registry that the commands in commands/ which program.ts does not list yet are written for. When the library has them,
// this file goes, and `planned(registry)` becomes `registry`.
import type { CloneOptions, Progress, RootfsRegistry, StackInfo, VmRootfs } from '../index.js';

interface Lengthy {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
}

export interface PublishOptions extends Lengthy {
  readonly replace?: boolean;
  readonly expectedSha256?: string;
  readonly sizeBytes?: number;
  readonly format?: string;
}

export interface SlotInfo {
  readonly vmId: string;
  readonly rawId: string;
  readonly stack?: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly strategy: string;
  readonly state: string;
}

interface Planned {
  publishStack(name: string, source: string, options: PublishOptions): Promise<StackInfo>;
  removeStack(name: string, options: { force?: boolean }): Promise<unknown>;
  slots(options: { signal?: AbortSignal }): AsyncIterable<SlotInfo>;
  slot(vmId: string): Promise<(SlotInfo & object) | undefined>;
  usage(options?: { signal?: AbortSignal }): Promise<object>;
  forkSlot(from: string, vmId: string, options: CloneOptions): Promise<VmRootfs>;
  commitSlot(vmId: string, stack: string, options: { replace?: boolean }): Promise<StackInfo>;
  snapshotSlot(vmId: string, name: string, options: Lengthy & { with?: readonly string[] }): Promise<object>;
  snapshots(): Promise<readonly object[]>;
  verifySnapshot(name: string, options: Lengthy): Promise<object>;
  restoreSnapshot(name: string, vmId: string, options: CloneOptions): Promise<VmRootfs>;
  removeSnapshot(name: string): Promise<unknown>;
}

export function planned(registry: RootfsRegistry): Planned {
  return registry as unknown as Planned;
}
