import type { StackInfo } from '../catalog/catalog.js';
import {
  optionalBoolean,
  optionalFunction,
  optionalSignal,
  readOptions,
  requireSizeBytes,
  show,
} from '../system/arguments.js';
import { invalidArgument } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import { isSha256 } from '../system/sha256.js';
import { BLOCK_BYTES } from './ext4/layout.js';
import { IMAGE_FORMATS, type ImageFormat } from './image-format.js';
import { parsePlatform } from './platform.js';

/** Bytes count for the current step: read from the source, or hashed from the image. */
export interface PublishProgress extends Progress {
  readonly step: 'read' | 'hash';
}

/** Limits on what a source may hold. The defaults fit any root filesystem. Lower them for untrusted sources. */
export interface PublishLimits {
  /**
   * Maximum decompressed size of a compressed source, qcow2 or all layers of a container image, and of the blocks that
   * the files of a tar take in the image, in bytes. Default: 1 TiB.
   */
  readonly maxBytes?: number;
  /** Maximum number of files, folders and links in a folder, tar or all layers. Default: 4,000,000. */
  readonly maxFiles?: number;
  /** Maximum folder depth in a folder, tar or layer. Default: 1,000. */
  readonly maxDepth?: number;
  /** Maximum window memory for `zstd` or `xz`. Default: 2 GiB, the maximum of their formats. */
  readonly maxWindowBytes?: number;
}

export const DEFAULT_LIMITS: Required<PublishLimits> = {
  maxBytes: 2 ** 40,
  maxFiles: 4_000_000,
  maxDepth: 1000,
  maxWindowBytes: 2 ** 31,
};

export interface PublishOptions {
  /** Replace the stack's existing image. Without this option, an existing image is `STACK_EXISTS`. */
  readonly replace?: boolean;
  /**
   * Publish only an image with this SHA-256 (64 hex digits). It is the digest of the image itself: for a compressed
   * file after decompression, for a qcow2 after conversion, for a folder or tar the digest that publishing it returned
   * before. It is compared before a journal is replayed.
   */
  readonly expectedSha256?: string;
  /**
   * Size of the filesystem made from a folder or tar, a multiple of 4,096. By default it has room for the tree, a
   * quarter more, and 64 MiB, and is at least 128 MiB. Unused space takes hardly any room on disk (only the journal and
   * inode tables are reserved). Images keep their size, so for them this is `INVALID_ARGUMENT`.
   */
  readonly sizeBytes?: number;
  /**
   * The format of the source, for when its first bytes do not show it (a tar older than POSIX). After decompression,
   * the format is detected again.
   */
  readonly format?: ImageFormat;
  /** The platform to pick from a multi-platform container image, such as `linux/arm64`. Default: this host's. */
  readonly platform?: string;
  /**
   * Also publish what is mounted inside a folder, such as a separate `/boot`. Without this option, each mount point is
   * published as an empty folder, and a process warning (`MICROVM_ROOTFS_MOUNTS`) names it.
   */
  readonly includeMounts?: boolean;
  /** A source that exceeds them is rejected with `SOURCE_TOO_LARGE`. */
  readonly limits?: PublishLimits;
  readonly signal?: AbortSignal;
  /** Called between slices of the work. */
  readonly onProgress?: (progress: PublishProgress) => void;
}

/** The stack that was published. */
export interface PublishedStack extends StackInfo {
  /** Whether the stack already had an image. */
  readonly replaced: boolean;
  /** The detected format of the source. */
  readonly format: ImageFormat;
}

export interface RemoveStackOptions {
  /**
   * Remove the stack even if clones of it exist. They stay intact, but calling the same `cloneForVm` again fails with
   * `STACK_NOT_FOUND`.
   */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
}

const PUBLISH_OPTION_KEYS = [
  'replace',
  'expectedSha256',
  'sizeBytes',
  'format',
  'platform',
  'includeMounts',
  'limits',
  'signal',
  'onProgress',
] as const;

const LIMIT_KEYS = Object.keys(DEFAULT_LIMITS) as (keyof PublishLimits)[];

/** Throws `INVALID_ARGUMENT`, `ABORT_ERR`. */
export function parsePublishOptions(what: string, options: PublishOptions): PublishOptions {
  const given = readOptions('options', options, PUBLISH_OPTION_KEYS);
  const { replace, sizeBytes, format, platform, includeMounts, signal, onProgress } = given;
  optionalBoolean('replace', replace);
  optionalBoolean('includeMounts', includeMounts);
  const limits = parseLimits(given.limits, LIMIT_KEYS);
  optionalFunction('onProgress', onProgress);
  optionalSignal(what, signal);
  parsePlatform(platform);
  const expectedSha256 = parseExpected(given.expectedSha256);
  if (format !== undefined && !IMAGE_FORMATS.includes(format))
    throw invalidArgument(`format must be one of ${IMAGE_FORMATS.join(', ')}, got ${show(format)}`);
  if (sizeBytes !== undefined && requireSizeBytes('sizeBytes', sizeBytes) % BLOCK_BYTES !== 0)
    throw invalidArgument(`sizeBytes must be a multiple of ${BLOCK_BYTES}, got ${sizeBytes}`);
  return { ...given, limits, ...(expectedSha256 === undefined ? {} : { expectedSha256 }) };
}

/** Throws `INVALID_ARGUMENT`. `names` are those that may be given. */
export function parseLimits(
  limits: PublishLimits | undefined,
  names: readonly (keyof PublishLimits)[],
): PublishLimits {
  const given = readOptions('limits', limits === undefined ? {} : limits, names);
  for (const [name, value] of Object.entries(given))
    if (!(Number.isSafeInteger(value) && value > 0))
      throw invalidArgument(`limits.${name} must be a whole number above 0, got ${show(value)}`);
  return given;
}

/** With the default where none is given. */
export function limitsOf(limits: PublishLimits | undefined): Required<PublishLimits> {
  return { ...DEFAULT_LIMITS, ...limits };
}

/** In lower case, as digests are written here. Throws `INVALID_ARGUMENT`. */
export function parseExpected(sha256: unknown): string | undefined {
  if (sha256 === undefined) return undefined;
  const digest = typeof sha256 === 'string' ? sha256.toLowerCase() : sha256;
  if (isSha256(digest)) return digest;
  throw invalidArgument(`expectedSha256 must be 64 hex digits, got ${show(sha256)}`);
}
