// Pushes a snapshot to a registry: its manifest, and each of its files cut into chunks like the image of a stack.

import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { native, type OpenedSource } from '../addon/native.js';
import type { OpenSnapshot } from '../snapshots/open-snapshot.js';
import { requireDigest } from '../snapshots/snapshot-files.js';
import { totalBytes } from '../snapshots/snapshot-manifest.js';
import type { Snapshots } from '../snapshots/snapshots.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError, RootfsError } from '../system/errors.js';
import type { Progress } from '../system/long-work.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, blobOf, SNAPSHOT_MANIFEST_TYPE, SNAPSHOT_TYPE } from './artifact.js';
import { packsToReuse } from './base-packs.js';
import type { ChunkList } from './chunk-list.js';
import { cutImage } from './cut.js';
import { openSame } from './open-same.js';
import { Pace } from './pace.js';
import { packEndsOfAll } from './packs.js';
import { type PushedImage, pushImage, sendBlob } from './push-image.js';
import { PushProgress } from './push-progress.js';
import { putArtifact } from './put-artifact.js';
import type { Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import { FILES_LIMIT } from './snapshot-artifact.js';
import type { PushedSnapshot } from './snapshot-options.js';
import type { PushOptions } from './transfer-options.js';
import { withRegistry } from './with-registry.js';

interface PushSnapshotRequest {
  readonly name: string;
  readonly reference: Reference;
  readonly base: Reference | undefined;
  readonly level: number;
  readonly options: PushOptions;
}

interface PushSnapshotContext {
  readonly snapshots: Snapshots;
  readonly registries: RegistrySettings;
}

/** A push that is under way. */
interface Push extends PushSnapshotRequest {
  readonly client: RegistryClient;
  readonly workFolder: string;
}

/** Bytes of a layer in the manifest, without the name of its file. */
const LAYER_BYTES = 256;

export async function pushSnapshot(
  task: Task,
  { snapshots, registries }: PushSnapshotContext,
  request: PushSnapshotRequest,
): Promise<PushedSnapshot> {
  const { name, reference, options } = request;
  try {
    return await withRegistry(registries, reference, 'pull,push', async (clients) => {
      const client = clients.at(-1) as RegistryClient;
      const onProgress = (progress: Progress) =>
        options.onProgress?.({ step: 'check', ...progress, reusedBytes: 0 });
      const pushed = await snapshots.read(name, { task, onProgress }, async (snapshot) => {
        const sent = await snapshots.folder.inWorkFolder('push', (workFolder) =>
          pushFiles(task, { ...request, client, workFolder }, snapshot),
        );
        return { ...sent, ...contentOf(snapshot) };
      });
      return await putArtifact(task, client, reference, { artifactType: SNAPSHOT_TYPE, ...pushed });
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

function contentOf({ text, record }: OpenSnapshot) {
  return {
    sha256: native().sha256(text),
    sizeBytes: totalBytes(record),
    annotations: { [ANNOTATION.source]: record.sourceSha256 },
  };
}

/** All files are open from the start: what happens to their names meanwhile is no matter. */
async function pushFiles(task: Task, push: Push, snapshot: OpenSnapshot): Promise<PushedImage> {
  const count = snapshot.record.files.length;
  if (count > FILES_LIMIT)
    throw new RootfsError(
      'SOURCE_TOO_LARGE',
      `the snapshot has ${count} files, an artifact may have ${FILES_LIMIT}: take it with fewer files`,
    );
  const files: FileHandle[] = [];
  try {
    for (const [i, { name }] of snapshot.record.files.entries()) {
      const { identity } = (snapshot.sources[i] as OpenedSource).info;
      files.push(await openSame(join(snapshot.path, name), identity, () => replacedError(snapshot)));
    }
    return await pushOpened(task, push, snapshot, files);
  } finally {
    for (const file of files) await file.close();
  }
}

function replacedError({ path }: OpenSnapshot): RootfsError {
  const message = `snapshot ${path} was replaced or removed while it was opened: push it again`;
  return new RootfsError('SOURCE_CHANGED', message, { path });
}

async function pushOpened(
  task: Task,
  push: Push,
  snapshot: OpenSnapshot,
  files: readonly FileHandle[],
): Promise<PushedImage> {
  const { client, level, workFolder, options } = push;
  const { text, record } = snapshot;
  const progress = new PushProgress(totalBytes(record), options.onProgress);
  const lists = await cutAll(task, snapshot, files, progress);
  const ends = await packEndsOfAll(
    lists,
    record.files.map(({ name }) => LAYER_BYTES + 2 * Buffer.byteLength(name)),
  );
  const pace = new Pace(options.concurrency);
  client.onBusy = pace.slowDown;
  const base = await packsToReuse(task, client, push, contentOf(snapshot).sha256);
  const to = { client, pace, level, workFolder, base };
  const parts: PushedImage[] = [];
  for (const [i, { name }] of record.files.entries()) {
    const list = lists[i] as ChunkList;
    const file = files[i] as FileHandle;
    const annotations = { [ANNOTATION.file]: name };
    const onPack = (bytes: number, wasSent: boolean) => progress.packDone(bytes, wasSent);
    parts.push(await pushImage(task, { ...to, file, list, ends: ends[i] as number[], annotations, onPack }));
  }
  parts.push(await pushManifest(task, client, Buffer.from(text)));
  return {
    layers: parts.flatMap(({ layers }) => layers),
    uploadedBytes: parts.reduce((sum, { uploadedBytes }) => sum + uploadedBytes, 0),
    reusedBytes: parts.reduce((sum, { reusedBytes }) => sum + reusedBytes, 0),
  };
}

async function cutAll(
  task: Task,
  { path, record }: OpenSnapshot,
  handles: readonly FileHandle[],
  progress: PushProgress,
): Promise<ChunkList[]> {
  const lists: ChunkList[] = [];
  let before = 0;
  for (const [i, { name, sha256, sizeBytes }] of record.files.entries()) {
    const start = before;
    const onProgress = (done: number) => progress.report('cut', start + done);
    const cut = await cutImage(task, handles[i] as FileHandle, sizeBytes, onProgress);
    // A file that was verified earlier has not been read again.
    requireDigest(join(path, name), sha256, cut.sha256);
    lists.push(cut.list);
    before += sizeBytes;
  }
  return lists;
}

async function pushManifest(task: Task, client: RegistryClient, bytes: Buffer): Promise<PushedImage> {
  const layer = { ...blobOf(bytes), mediaType: SNAPSHOT_MANIFEST_TYPE, annotations: {} };
  const wasSent = await sendBlob(task, client, layer, () => bytes);
  return {
    layers: [layer],
    uploadedBytes: wasSent ? layer.size : 0,
    reusedBytes: wasSent ? 0 : layer.size,
  };
}
