import { COPY_OPTION_KEYS, type CopyOptions } from '../slot/slot-options.js';
import {
  type Owner,
  optionalBoolean,
  optionalMode,
  optionalOwner,
  optionalSignal,
  readOptions,
  requireSizeBytes,
} from '../system/arguments.js';

export interface CloneOptions {
  /**
   * `true`: the guest writes to its root, so the clone is never a hardlink. `false`: the guest mounts its root
   * read-only, so a hardlink is fine. Not given: without reflinks the clone is a hardlink, and a process warning says
   * so.
   */
  readonly writable?: boolean;
  /** Grow the clone to this many bytes: see `cloneForVmWithSize`. */
  readonly sizeBytes?: number;
  /** Owner of the image, for a jailed VMM. Needs CAP_CHOWN. */
  readonly owner?: Owner;
  /** Permission bits of the image. The default is 0o600. */
  readonly mode?: number;
  /**
   * Flush the image, stamps and folders before the call resolves, so that the slot survives a power cut. If the flush
   * fails, the slot stays and the call rejects; the same call flushes it again.
   */
  readonly durable?: boolean;
  readonly signal?: AbortSignal;
}

/** Checked options. */
export interface ParsedCloneOptions extends CopyOptions {
  readonly writable: boolean | undefined;
  readonly sizeBytes: number | undefined;
}

export const CLONE_OPTION_KEYS = ['writable', 'sizeBytes', ...COPY_OPTION_KEYS] as const;

/** `what` is called only for an error message. */
export function parseCloneOptions(what: () => string, options: CloneOptions): ParsedCloneOptions {
  const { writable, sizeBytes, owner, mode, durable, signal } = readOptions(
    'options',
    options,
    CLONE_OPTION_KEYS,
  );
  return {
    writable: optionalBoolean('writable', writable),
    sizeBytes: sizeBytes === undefined ? undefined : requireSizeBytes('sizeBytes', sizeBytes),
    owner: optionalOwner(owner),
    mode: optionalMode(mode),
    durable: optionalBoolean('durable', durable) ?? false,
    signal: signal === undefined ? undefined : optionalSignal(what(), signal),
  };
}
