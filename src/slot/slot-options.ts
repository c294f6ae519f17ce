// Options of what is made from an existing slot.
import {
  type Owner,
  optionalBoolean,
  optionalMode,
  optionalOwner,
  optionalSignal,
  readOptions,
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

export const COPY_OPTION_KEYS = ['owner', 'mode', 'durable', 'signal'] as const;

export function parseCopyOptions(what: string, options: Omit<ForkOptions, 'refuseInUse'>): CopyOptions {
  const { owner, mode, durable, signal } = readOptions('options', options, COPY_OPTION_KEYS);
  return {
    owner: optionalOwner(owner),
    mode: optionalMode(mode),
    durable: optionalBoolean('durable', durable) ?? false,
    signal: optionalSignal(what, signal),
  };
}
