// Pulls a snapshot from a registry. Its manifest comes as it was written, so a restore finds what it would on the first
// host. The template that the disk descends from need not be here, but what it has of the disk is not fetched.

import { chmod, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Catalog } from '../catalog/catalog.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
import { SNAPSHOT_MANIFEST_FILE, type SnapshotRecord, totalBytes } from '../snapshots/snapshot-manifest.js';
import type { Snapshot, Snapshots } from '../snapshots/snapshots.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError, hasCode, RootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import type { Task } from '../system/task.js';
import { type Artifact, contentOf, SNAPSHOT_TYPE } from './artifact.js';
import { assembleImages } from './assemble-image.js';
import type { KnownChunks } from './known-chunks.js';
import { type ArtifactRequest, type FoundArtifact, pullArtifact, requireExpected } from './pull-artifact.js';
import type { PullFolder } from './pull-folder.js';
import { formatReference } from './reference.js';
import { type IsLikely, reusableTemplates } from './reusable-templates.js';
import { readSnapshot, type SnapshotArtifact } from './snapshot-artifact.js';
import type { PulledSnapshot } from './snapshot-options.js';

interface PullSnapshotRequest extends Omit<ArtifactRequest, 'isWanted' | 'platform'> {
  readonly name: string;
}

interface PullSnapshotContext {
  readonly snapshots: Snapshots;
  readonly pulls: PullFolder;
  readonly catalog: Catalog;
  readonly known: KnownChunks;
  readonly registries: RegistrySettings;
}

export async function pullSnapshot(
  task: Task,
  context: PullSnapshotContext,
  request: PullSnapshotRequest,
): Promise<PulledSnapshot> {
  const { snapshots, pulls, registries } = context;
  const { name } = request;
  try {
    const isWanted = ({ artifactType }: Artifact) => artifactType === SNAPSHOT_TYPE;
    const snapshot = { ...request, isWanted, platform: undefined };
    return await pullArtifact<PulledSnapshot>(task, registries, pulls, snapshot, {
      present: async ({ artifact, digest }) => {
        const { sha256 } = contentOf(artifact);
        requireExpected(request, sha256);
        const found = await snapshots.find(name, sha256);
        return found && unchanged(found, digest);
      },
      inFolder: (work) => snapshots.inFolder(work),
      pull: (found, path) => pullInto(task, context, request, found, join(path, 'snapshot')),
    });
  } catch (error) {
    throw asRootfsError(`${task.what} as ${name}`, error);
  }
}

async function pullInto(
  task: Task,
  context: PullSnapshotContext,
  request: PullSnapshotRequest,
  found: FoundArtifact,
  staged: string,
): Promise<PulledSnapshot> {
  const { onProgress } = request.options;
  const snapshot = await readSnapshot(task, found.artifact, found.reader);
  const images = wantedImages(task, context, snapshot);
  const { reusedBytes } = await assembleImages(task, images, staged, {
    ...found,
    known: context.known,
    onProgress,
  });
  await finishFiles(staged, snapshot.record);
  const watched = {
    task,
    onProgress: ({ bytesDone, bytesTotal }: { bytesDone: number; bytesTotal: number }) =>
      onProgress?.({ step: 'check', bytesDone, bytesTotal, reusedBytes }),
  };
  const placed = await context.snapshots
    .publish(request.name, snapshot, staged, watched)
    .catch((error: unknown) => {
      throw hasCode(error, 'SNAPSHOT_CORRUPT') ? otherBytes(request, error) : error;
    });
  const downloadedBytes = found.downloadedBytes();
  return { ...placed, digest: found.digest, downloadedBytes, reusedBytes, unchanged: false };
}

/** Templates hold what a disk holds. No other file is looked for in them, as each may have to be read for it. */
function wantedImages(
  task: Task,
  { catalog, known }: PullSnapshotContext,
  { record, files }: SnapshotArtifact,
) {
  const isSource: IsLikely = ({ sha256 }) => sha256 === record.sourceSha256;
  const ofDisk = (missingBytes: () => number) =>
    reusableTemplates(task, catalog, known, isSource, missingBytes);
  return record.files.map(({ name }, i) => ({
    name,
    chunked: files[i] as (typeof files)[number],
    templates: name === CLONE_ROOTFS_FILE ? ofDisk : undefined,
  }));
}

/** As `snapshotSlot` leaves them: on disk, and nobody writes to them. */
async function finishFiles(staged: string, { files }: SnapshotRecord): Promise<void> {
  for (const { name } of files) {
    await chmod(join(staged, name), 0o400);
    await flush(join(staged, name));
  }
  // A pull that was killed just before its end has written it.
  await rm(join(staged, SNAPSHOT_MANIFEST_FILE), { force: true });
}

function unchanged(snapshot: Snapshot, digest: string): PulledSnapshot {
  return { ...snapshot, digest, downloadedBytes: 0, reusedBytes: totalBytes(snapshot), unchanged: true };
}

function otherBytes({ reference }: PullSnapshotRequest, cause: unknown): RootfsError {
  return new RootfsError(
    'DIGEST_MISMATCH',
    `${formatReference(reference)} does not contain the files listed in its SHA256SUMS: push the snapshot again, ` +
      'and check the registry',
    { cause },
  );
}
