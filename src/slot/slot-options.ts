// Options of what is made from an existing slot.
import {
  type Owner,
  optionalBoolean,
  optionalMode,
  optionalOwner,
  optionalSignal,
  requireKnownKeys,
} from '../system/arguments.js';

export interface ForkOptions {
  /** Reject with `SLOT_IN_USE` if a process has the image open, instead of trusting that the VM is paused. */
  readonly refuseInUse?: boolean;
  /** The owner of the new image. Needs CAP_CHOWN. */
  readonly owner?: Owner;
  /** The permission bits of the new image. The default is 0o600. */
  readonly mode?: number;
  /** Flush before the call resolves, so that the result survives a power cut. */
  readonly durable?: boolean;
  readonly signal?: AbortSignal;
}

/** Checked options. */
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
