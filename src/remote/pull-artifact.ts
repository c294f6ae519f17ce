// What every pull does, whatever the artifact holds: the manifest first, then only what is not here, in a folder that
// an interrupted pull leaves for the next one.

import { DamageFound } from '../image/e2fsprogs.js';
import type { RegistrySettings } from '../system/config.js';
import { abortError, asRootfsError, RootfsError } from '../system/errors.js';
import { onAbort } from '../system/on-abort.js';
import type { Task } from '../system/task.js';
import { type Artifact, artifactOf, invalid, SNAPSHOT_TYPE, STACK_TYPE } from './artifact.js';
import { BlobReader } from './blob-reader.js';
import { fetchManifest } from './fetch-manifest.js';
import { Pace } from './pace.js';
import type { PullFolder } from './pull-folder.js';
import { formatReference, type Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import type { PullOptions, TransferOptions } from './transfer-options.js';
import { withRegistry } from './with-registry.js';

export interface ArtifactRequest {
  readonly reference: Reference;
  readonly isWanted: (artifact: Artifact) => boolean;
  readonly expectedSha256: string | undefined;
  readonly platform: string | undefined;
  readonly verify: PullOptions['verify'];
  readonly options: TransferOptions;
}

/** The artifact, and what reads its blobs. */
export interface FoundArtifact {
  readonly artifact: Artifact;
  /** The digest of its manifest. */
  readonly digest: string;
  readonly reader: BlobReader;
  readonly pace: Pace;
  /** Bytes of blobs that have come so far. */
  readonly downloadedBytes: () => number;
}

interface PullSteps<T> {
  /**
   * The result, if this host has the content already. Called again when another pull has ended. Rejects if the content
   * is not the expected one.
   */
  readonly present: (found: FoundArtifact) => Promise<T | undefined>;
  /** Opens, and if need be makes, the folder that the content goes to. */
  readonly inFolder: (work: () => Promise<T>) => Promise<T>;
  /** Fetches into this folder, which stays if the pull is interrupted, and puts the content where it belongs. */
  readonly pull: (found: FoundArtifact, path: string) => Promise<T>;
}

export async function pullArtifact<T>(
  task: Task,
  registries: RegistrySettings,
  pulls: PullFolder,
  request: ArtifactRequest,
  steps: PullSteps<T>,
): Promise<T> {
  const { reference } = request;
  return withRegistry(registries, reference, 'pull', async (clients) => {
    const manifest = await fetchManifest(task, clients, reference, request.platform);
    await verified(task, request, manifest.digest);
    const artifact = await artifactOf(manifest.value);
    requireKind(request, artifact);
    const found = foundIn(artifact, manifest.digest, clients, request.options);
    const before = await steps.present(found);
    if (before !== undefined) {
      await pulls.forget(manifest.digest).catch(() => {}); // the next pull tries again
      return before;
    }
    return steps.inFolder(() =>
      pulls.hold(task, manifest.digest, async (path) => {
        // Another process may have pulled it while this one waited.
        const now = await steps.present(found);
        if (now !== undefined) {
          await pulls.discard(path);
          return now;
        }
        await pulls.removeOld(task).catch(() => {}); // the next pull tries again
        try {
          const pulled = await steps.pull(found, path);
          await pulls.discard(path);
          return pulled;
        } catch (error) {
          if (isLasting(error)) await pulls.discard(path);
          throw await withOtherPulls(task, pulls, path, error);
        }
      }),
    );
  });
}

/** An abort ends the pull at once, whatever the caller's function waits for. */
async function verified(task: Task, { verify, reference }: ArtifactRequest, digest: string): Promise<void> {
  const { what, signal } = task;
  if (verify === undefined) return;
  task.checkAborted();
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = onAbort(signal, () => reject(abortError(what, signal as AbortSignal)));
  });
  try {
    await Promise.race([verify({ reference: formatReference(reference), digest, signal }), aborted]);
  } finally {
    stop();
  }
}

function foundIn(
  artifact: Artifact,
  digest: string,
  clients: readonly RegistryClient[],
  options: TransferOptions,
): FoundArtifact {
  const pace = new Pace(options.concurrency);
  let bytes = 0;
  const onBytes = (count: number) => {
    bytes += count;
  };
  const reader = new BlobReader(clients, { onBytes, onBusy: pace.slowDown });
  return { artifact, digest, reader, pace, downloadedBytes: () => bytes };
}

function requireKind({ reference, isWanted }: ArtifactRequest, artifact: Artifact): void {
  if (!isWanted(artifact))
    throw invalid(`${formatReference(reference)} is ${describeKind(artifact, reference)}`);
}

function describeKind({ artifactType, layers }: Artifact, reference: Reference): string {
  if (artifactType === STACK_TYPE) return 'a stack, not a snapshot: pull it with pullStack';
  if (artifactType === SNAPSHOT_TYPE) return 'a snapshot, not a stack: pull it with pullSnapshot';
  const type = artifactType || 'unknown';
  if (layers.length === 1)
    return `of type ${type}, no snapshot: if its layer is a disk, pull it with pullStack`;
  return (
    `of type ${type}, with ${layers.length} layers: no stack, no snapshot, no single disk; ` +
    `for a container image use publishStack('NAME', 'docker://${formatReference(reference)}')`
  );
}

/** Throws `DIGEST_MISMATCH`. `sha256` is that of the content. */
export function requireExpected(
  { reference, expectedSha256 }: Pick<ArtifactRequest, 'reference' | 'expectedSha256'>,
  sha256: string,
): void {
  if (expectedSha256 === undefined || expectedSha256 === sha256) return;
  throw new RootfsError(
    'DIGEST_MISMATCH',
    `${formatReference(reference)} has content with the SHA-256 ${sha256} rather than ${expectedSha256}: ` +
      'correct the reference or the digest',
  );
}

/** A full disk may be full of other partial pulls, which no other call removes before a week has passed. */
async function withOtherPulls(task: Task, pulls: PullFolder, own: string, error: unknown): Promise<unknown> {
  const failed = asRootfsError(task.what, error);
  if (!(failed instanceof RootfsError) || !['ENOSPC', 'EDQUOT'].includes(failed.code)) return error;
  const bytes = await pulls.bytesBeside(own);
  if (bytes === 0) return error;
  const { code, message, errno, syscall, path, dest } = failed;
  return new RootfsError(
    code,
    `${message}; other pulls that run or were interrupted hold ${bytes} bytes in ${pulls.path}: pull them to their ` +
      'end, or remove their folders there while no pull runs',
    { errno, syscall, path, dest, cause: failed.cause ?? failed },
  );
}

/** Whether another try would fail in the same way, so that what was fetched is of no use to it. */
function isLasting(error: unknown): boolean {
  const codes = [
    'ARTIFACT_INVALID',
    'DIGEST_MISMATCH',
    'IMAGE_INVALID',
    'SOURCE_TOO_LARGE',
    'TEMPLATE_CORRUPT',
  ];
  return error instanceof DamageFound || (error instanceof RootfsError && codes.includes(error.code));
}
