// Options of what is made from a slot that is there.
import {
  type Owner,
  optionalBoolean,
  optionalMode,
  optionalOwner,
  optionalSignal,
  requireKnownKeys,
} from '../system/arguments.js';

export interface ForkOptions {
  /** Reject with `SLOT_IN_USE` if some process has the image open, rather than trust that the VM is paused. */
  readonly refuseInUse?: boolean;
  /** Owner of the new image. Needs CAP_CHOWN. */
  readonly owner?: Owner;
  /** Permission bits of the new image; 0o600 if not given. */
  readonly mode?: number;
  /** Flush before the call resolves, so that what was made outlives a power cut. */
  readonly durable?: boolean;
  readonly signal?: AbortSignal;
}

/** Options that were checked. */
export interface CopyOptions {
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
  readonly durable: boolean;
  readonly signal: AbortSignal | undefined;
}

const KEYS = ['owner', 'mode', 'durable', 'signal'];

export function parseCopyOptions(
  what: string,
  options: Omit<ForkOptions, 'refuseInUse'>,
  ...others: string[]
): CopyOptions {
  requireKnownKeys('options', options, [...KEYS, ...others]);
  return {
    owner: optionalOwner(options.owner),
    mode: optionalMode(options.mode),
    durable: optionalBoolean('durable', options.durable) ?? false,
    signal: optionalSignal(what, options.signal),
  };
}
