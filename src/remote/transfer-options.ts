// What callers of pushStack, pullStack and inspectReference pass in, and get. pushSnapshot takes what pushStack takes.

import { parsePlatform } from '../publish/platform.js';
import {
  type PublishedStack,
  type PublishLimits,
  parseExpected,
  parseLimits,
} from '../publish/publish-options.js';
import type { SnapshotFacts } from '../snapshots/snapshot-manifest.js';
import { optionalBoolean, optionalFunction, optionalSignal, readOptions, show } from '../system/arguments.js';
import { invalidArgument, RootfsError } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import { Task } from '../system/task.js';
import { defaultName, formatReference, parseReference } from './reference.js';
import { requireLevel } from './zstd.js';

/** Bytes of the image, for the current step; of the layer, for the steps `download` and `unpack` of a single disk. */
export interface TransferProgress extends Progress {
  readonly step: 'cut' | 'reuse' | 'upload' | 'download' | 'unpack' | 'check';
  /** Bytes of the image that need not cross the wire. */
  readonly reusedBytes: number;
}

export interface TransferOptions {
  /**
   * How many packs to work on at once, from 1 to 64. Default: 8. Fewer while the registry is busy. A pull fetches from
   * at most four packs at once, for the memory that more would take.
   */
  readonly concurrency?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: TransferProgress) => void;
}

export interface PushOptions extends TransferOptions {
  /**
   * An artifact in the same registry, such as the version before. Packs that have not changed since are neither
   * compressed nor sent. Default: what the reference names, if that has the same content and no `level` is given.
   */
  readonly base?: string;
  /** How hard zstd tries, from 1 to 22. Default: 3. */
  readonly level?: number;
}

/** The artifact that was pushed. */
export interface PushedArtifact {
  readonly reference: string;
  /** The digest of the artifact's manifest: `HOST/NAME@DIGEST` always names these bytes. */
  readonly digest: string;
  /** Bytes of blobs that were sent. */
  readonly uploadedBytes: number;
  /** Bytes of blobs that the registry had already. */
  readonly reusedBytes: number;
}

/** The stack that was pushed. */
export interface PushedStack extends PushedArtifact {
  /** The SHA-256 of the image. */
  readonly sha256: string;
  readonly sizeBytes: number;
}

export interface PullOptions extends TransferOptions {
  /** The stack's name. Default: the last part of the reference's name. */
  readonly name?: string;
  /** Replace the stack's existing image. Without this option, another image under the name is `STACK_EXISTS`. */
  readonly replace?: boolean;
  /** Pull only an image with this SHA-256 (64 hex digits). */
  readonly expectedSha256?: string;
  /** The platform to pick from an index, such as `linux/arm64`. Default: this host's. */
  readonly platform?: string;
  /**
   * Limits on what a single disk of another tool may hold: see `publishStack`. The image of a pushed stack has no limit
   * unless `maxBytes` is given.
   */
  readonly limits?: Pick<PublishLimits, 'maxBytes' | 'maxWindowBytes'>;
  /**
   * Awaited before any blob is fetched, for example to run `cosign verify`. If it rejects, so does the pull. `signal`
   * is that of the pull: when it is aborted, the pull waits no longer.
   */
  readonly verify?: (artifact: {
    readonly reference: string;
    readonly digest: string;
    readonly signal: AbortSignal | undefined;
  }) => Promise<void> | void;
}

/** The stack that was pulled. */
export interface PulledStack extends PublishedStack {
  /** The digest of the artifact's manifest. Unlike `sha256`, it identifies the artifact in the registry. */
  readonly digest: string;
  /** Bytes of blobs that came over the network. */
  readonly downloadedBytes: number;
  /**
   * Bytes of the image that were taken from local templates, or from an interrupted pull; of a single disk, bytes of
   * its layer.
   */
  readonly reusedBytes: number;
  /** Whether the stack had this image already; with `replace`, also its config, and the same users may read it. */
  readonly unchanged: boolean;
}

export interface InspectOptions extends Pick<TransferOptions, 'signal'>, Pick<PullOptions, 'platform'> {}

/** What a reference names. */
export interface RemoteArtifact {
  readonly reference: string;
  readonly digest: string;
  /**
   * `application/vnd.microvm-rootfs.stack.v1` for what `pushStack` makes, `…snapshot.v1` for what `pushSnapshot`
   * makes; others are those of other tools.
   */
  readonly artifactType: string;
  /** Bytes of all its layers. */
  readonly storedBytes: number;
  /** The SHA-256 of the image or the snapshot's `SHA256SUMS`. Stacks and snapshots alone have it and what follows. */
  readonly sha256?: string;
  /** The size of the image, or of all files of the snapshot. */
  readonly sizeBytes?: number;
  /**
   * About how many bytes a pull would fetch: what no template with known chunks has. It fetches a little more than the
   * chunks that are missing where that takes fewer requests.
   */
  readonly missingBytes?: number;
  /** Only of snapshots. */
  readonly snapshot?: SnapshotFacts;
}

const CONCURRENCY_LIMIT = 64;

export const TRANSFER_OPTION_KEYS = ['concurrency', 'signal', 'onProgress'] as const;

/** Throws `REFERENCE_INVALID`, `INVALID_ARGUMENT`, `ABORT_ERR`. */
export function parsePushOptions(name: string, text: string, options: PushOptions) {
  const reference = parseReference(text);
  const given = readOptions('options', options, [...TRANSFER_OPTION_KEYS, 'base', 'level']);
  const task = parseTransfer(`pushing ${name} to ${formatReference(reference)}`, given);
  if (reference.tag === undefined || reference.digest !== undefined)
    throw new RootfsError(
      'REFERENCE_INVALID',
      `cannot push to ${formatReference(reference)}: the digest follows from the image; give HOST/NAME:TAG`,
    );
  const base = given.base === undefined ? undefined : parseReference(given.base);
  if (base !== undefined && base.host !== reference.host)
    throw new RootfsError(
      'REFERENCE_INVALID',
      `base ${formatReference(base)} must be in the same registry, ${reference.host}`,
    );
  return { task, reference, base, level: requireLevel(given.level), options: given };
}

const PULL_OPTION_KEYS = [
  ...TRANSFER_OPTION_KEYS,
  'name',
  'replace',
  'expectedSha256',
  'platform',
  'limits',
  'verify',
] as const;

/** Throws `REFERENCE_INVALID`, `INVALID_ARGUMENT`, `ABORT_ERR`. */
export function parsePullOptions(text: string, options: PullOptions) {
  const reference = parseReference(text);
  const given = readOptions('options', options, PULL_OPTION_KEYS);
  const task = parseTransfer(`pulling ${formatReference(reference)}`, given);
  const { platform, verify } = given;
  const replace = optionalBoolean('replace', given.replace) ?? false;
  optionalFunction('verify', verify);
  parsePlatform(platform);
  const expectedSha256 = parseExpected(given.expectedSha256);
  const limits = parseLimits(given.limits, ['maxBytes', 'maxWindowBytes']);
  const name = given.name ?? defaultName(reference);
  return { task, name, reference, replace, options: given, expectedSha256, platform, limits, verify };
}

/** Throws `REFERENCE_INVALID`, `INVALID_ARGUMENT`, `ABORT_ERR`. */
export function parseInspectOptions(text: string, options: InspectOptions) {
  const reference = parseReference(text);
  const { platform, signal } = readOptions('options', options, ['platform', 'signal']);
  parsePlatform(platform);
  const what = `inspecting ${formatReference(reference)}`;
  return { task: new Task(what, optionalSignal(what, signal)), reference, platform };
}

/** Throws `INVALID_ARGUMENT`, `ABORT_ERR`. */
export function parseTransfer(what: string, { concurrency, onProgress, signal }: TransferOptions): Task {
  optionalFunction('onProgress', onProgress);
  const isCount = Number.isInteger(concurrency) && Number(concurrency) > 0;
  if (concurrency !== undefined && !(isCount && concurrency <= CONCURRENCY_LIMIT))
    throw invalidArgument(
      `concurrency must be an integer from 1 to ${CONCURRENCY_LIMIT}, got ${show(concurrency)}`,
    );
  return new Task(what, optionalSignal(what, signal));
}
