import {
  type Owner,
  optionalBoolean,
  optionalMode,
  optionalOwner,
  optionalSignal,
  requireKnownKeys,
  requireSizeBytes,
} from '../system/arguments.js';

export interface CloneOptions {
  /**
   * `true`: the guest writes to its root, so a hardlink is ruled out. `false`: it mounts its root read-only, a hardlink is welcome. Not
   * given: a hardlink is made where nothing faster than a copy serves, and a process warning says so.
   */
  readonly writable?: boolean;
  /** Grow the clone to this many bytes: see `cloneForVmWithSize`. */
  readonly sizeBytes?: number;
  /** Owner of the image, for a jailed VMM. Needs CAP_CHOWN. */
  readonly owner?: Owner;
  /** Permission bits of the image; 0o600 if not given. */
  readonly mode?: number;
  /**
   * Flush image, stamps and folders before the call resolves, so that the slot outlives a power cut. Where that fails a new slot is not there; one
   * that was there is as it was asked for, be it grown, and the same call flushes it again.
   */
  readonly durable?: boolean;
  readonly signal?: AbortSignal;
}

/** Options that were checked. */
export interface ParsedCloneOptions {
  readonly writable: boolean | undefined;
  readonly sizeBytes: number | undefined;
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
  readonly durable: boolean;
  readonly signal: AbortSignal | undefined;
}

export const CLONE_OPTION_KEYS = ['writable', 'sizeBytes', 'owner', 'mode', 'durable', 'signal'];

/** `what` is only made if it is told. */
export function parseCloneOptions(what: () => string, options: CloneOptions): ParsedCloneOptions {
  requireKnownKeys('options', options, CLONE_OPTION_KEYS);
  return {
    writable: optionalBoolean('writable', options.writable),
    sizeBytes: options.sizeBytes === undefined ? undefined : requireSizeBytes('sizeBytes', options.sizeBytes),
    owner: optionalOwner(options.owner),
    mode: optionalMode(options.mode),
    durable: optionalBoolean('durable', options.durable) ?? false,
    signal: options.signal === undefined ? undefined : optionalSignal(what(), options.signal),
  };
}
