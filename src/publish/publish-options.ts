import type { StackInfo } from '../catalog/catalog.js';
import {
  optionalBoolean,
  optionalFunction,
  optionalSignal,
  requireKnownKeys,
  requireSizeBytes,
  show,
} from '../system/arguments.js';
import { RootfsError } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import { IMAGE_FORMATS, type ImageFormat } from './image-format.js';
import { BLOCK_BYTES } from './make-ext4.js';
import { parsePlatform } from './platform.js';

/** Bytes are those of the step: read of the source, or hashed of the image. */
export interface PublishProgress extends Progress {
  readonly step: 'read' | 'hash';
}

/** How much a source may hold. The defaults fit any root file system; lower them for sources of strangers. */
export interface PublishLimits {
  /** Bytes that a compressed source or a qcow2 may have when it is decompressed. Default: 1 TiB. */
  readonly maxBytes?: number;
  /** Files, folders and links in a folder or tar. Default: 4,000,000. */
  readonly maxFiles?: number;
  /** Folders within each other in a folder or tar. Default: 1,000. */
  readonly maxDepth?: number;
  /** Memory that `zstd` or `xz` may take for what it looks back at. Default: 2 GiB, the most that their formats know. */
  readonly maxWindowBytes?: number;
}

export const DEFAULT_LIMITS: Required<PublishLimits> = {
  maxBytes: 2 ** 40,
  maxFiles: 4_000_000,
  maxDepth: 1000,
  maxWindowBytes: 2 ** 31,
};

export interface PublishOptions {
  /** Put the image in the place of the one that the stack has. Without it that is `STACK_EXISTS`. */
  readonly replace?: boolean;
  /**
   * Publish nothing but an image with this SHA-256 (64 hex digits). It is the digest of the image itself: of a compressed file after
   * decompression, of a qcow2 after conversion, of a folder or tar the one that publishing it gave before. Compared before a journal is
   * replayed.
   */
  readonly expectedSha256?: string;
  /**
   * How large the filesystem made of a folder or tar is to be: a multiple of 4,096. If not given it has room for the tree, a quarter more, and
   * 64 MiB, and at least 128 MiB; what is not used takes hardly any space (journal and inode tables are
   * reserved). `INVALID_ARGUMENT` for images, which keep their size.
   */
  readonly sizeBytes?: number;
  /** What the source is, where its first bytes do not tell (a tar older than POSIX). A compressed one is told anew after decompression. */
  readonly format?: ImageFormat;
  /** Which image of a container image for several platforms: `linux/arm64`. This host's if not given. */
  readonly platform?: string;
  /**
   * Publish also what is mounted in a folder, such as a separate `/boot`. Without it the folder of a mount is published empty, and a process
   * warning (`MICROVM_ROOTFS_MOUNTS`) names it.
   */
  readonly includeMounts?: boolean;
  /** `SOURCE_TOO_LARGE` for a source that holds more. */
  readonly limits?: PublishLimits;
  readonly signal?: AbortSignal;
  /** Called between slices of the work. */
  readonly onProgress?: (progress: PublishProgress) => void;
}

/** The stack that was published. */
export interface PublishedStack extends StackInfo {
  /** The stack had an image before. */
  readonly replaced: boolean;
  /** What the source was taken for. */
  readonly format: ImageFormat;
}

export interface RemoveStackOptions {
  /** Remove it even though there are clones of it. They stay whole, but the same `cloneForVm` again fails with `STACK_NOT_FOUND`. */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
}

/** Throws `INVALID_ARGUMENT`, `ABORT_ERR`. */
export function parsePublishOptions(what: string, options: PublishOptions): PublishOptions {
  const { expectedSha256, sizeBytes, format, platform, includeMounts, limits, signal, onProgress, replace } =
    options;
  const known = [
    'replace',
    'expectedSha256',
    'sizeBytes',
    'format',
    'platform',
    'includeMounts',
    'limits',
    'signal',
    'onProgress',
  ];
  requireKnownKeys('options', options, known);
  optionalBoolean('replace', replace);
  optionalBoolean('includeMounts', includeMounts);
  if (limits !== undefined) checkLimits(limits);
  optionalFunction('onProgress', onProgress);
  optionalSignal(what, signal);
  parsePlatform(platform);
  if (expectedSha256 !== undefined && !/^[0-9a-f]{64}$/i.test(String(expectedSha256)))
    throw invalid(`expectedSha256 must be 64 hex digits, got ${show(expectedSha256)}`);
  if (format !== undefined && !IMAGE_FORMATS.includes(format))
    throw invalid(`format must be one of ${IMAGE_FORMATS.join(', ')}, got ${show(format)}`);
  if (sizeBytes !== undefined && requireSizeBytes('sizeBytes', sizeBytes) % BLOCK_BYTES !== 0)
    throw invalid(`sizeBytes must be a multiple of ${BLOCK_BYTES}, got ${sizeBytes}`);
  return options;
}

function checkLimits(limits: PublishLimits): void {
  requireKnownKeys('limits', limits, Object.keys(DEFAULT_LIMITS));
  for (const [name, value] of Object.entries(limits))
    if (value !== undefined && !(Number.isSafeInteger(value) && value > 0))
      throw invalid(`limits.${name} must be a whole number above 0, got ${show(value)}`);
}

function invalid(message: string): RootfsError {
  return new RootfsError('INVALID_ARGUMENT', message);
}
