// What callers of pullSnapshot pass in, and what they and callers of pushSnapshot get.

import { parseExpected } from '../publish/publish-options.js';
import type { Snapshot } from '../snapshots/snapshots.js';
import { optionalFunction, readOptions } from '../system/arguments.js';
import { defaultName, formatReference, parseReference } from './reference.js';
import {
  type PullOptions,
  type PushedArtifact,
  parseTransfer,
  TRANSFER_OPTION_KEYS,
  type TransferOptions,
} from './transfer-options.js';

/** The snapshot that was pushed. */
export interface PushedSnapshot extends PushedArtifact {
  /** The SHA-256 of its `SHA256SUMS`, which holds the digests of its files. */
  readonly sha256: string;
  /** The size of all its files. */
  readonly sizeBytes: number;
}

export interface PullSnapshotOptions extends TransferOptions, Pick<PullOptions, 'verify'> {
  /** The snapshot's name. Default: the last part of the reference's name. */
  readonly name?: string;
  /** Pull only a snapshot whose `SHA256SUMS` has this SHA-256 (64 hex digits), as {@link PushedSnapshot} tells it. */
  readonly expectedSha256?: string;
}

/** The snapshot that was pulled. */
export interface PulledSnapshot extends Snapshot {
  /** The digest of the artifact's manifest. */
  readonly digest: string;
  /** Bytes of blobs that came over the network. */
  readonly downloadedBytes: number;
  /** Bytes of the files that were taken from local templates, other files of it, or an interrupted pull. */
  readonly reusedBytes: number;
  /** Whether this host had the snapshot already. */
  readonly unchanged: boolean;
}

/** Throws `REFERENCE_INVALID`, `INVALID_ARGUMENT`, `ABORT_ERR`. */
export function parsePullSnapshotOptions(text: string, options: PullSnapshotOptions) {
  const reference = parseReference(text);
  const what = `pulling ${formatReference(reference)}`;
  const given = readOptions('options', options, [
    ...TRANSFER_OPTION_KEYS,
    'name',
    'expectedSha256',
    'verify',
  ]);
  const task = parseTransfer(what, given);
  const { verify } = given;
  optionalFunction('verify', verify);
  const expectedSha256 = parseExpected(given.expectedSha256);
  const name = given.name ?? defaultName(reference);
  return { task, name, reference, options: given, expectedSha256, verify };
}
