// The artifact of a snapshot: its SHA256SUMS as a layer, and each file as packs with an index. An annotation of a layer
// says which file it belongs to. That name only has to be one in SHA256SUMS; it is never used as a path.

import { parseStackName } from '../catalog/stack-name.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
import { parseVmId } from '../slot/vm-id.js';
import {
  parseManifest,
  SNAPSHOT_MANIFEST_BYTES_LIMIT,
  SNAPSHOT_MANIFEST_FILE,
  type SnapshotManifest,
  type SnapshotRecord,
  totalBytes,
  unfitName,
} from '../snapshots/snapshot-manifest.js';
import { FILE_BYTES_LIMIT } from '../snapshots/take-snapshot.js';
import { show } from '../system/arguments.js';
import type { Task } from '../system/task.js';
import {
  ANNOTATION,
  type Artifact,
  contentOf,
  INDEX_TYPE,
  invalid,
  type Layer,
  PACK_TYPE,
  SNAPSHOT_MANIFEST_TYPE,
  SNAPSHOT_TYPE,
} from './artifact.js';
import type { BlobReader } from './blob-reader.js';
import { type ChunkedFile, chunkedFile, chunkedImage } from './chunked-file.js';
import { fetchBlob } from './fetch-blob.js';

export interface SnapshotArtifact extends SnapshotManifest {
  /** In the order of the record. */
  readonly files: readonly ChunkedFile[];
}

/** Each has an index of its own, which is fetched and kept in memory. */
export const FILES_LIMIT = 256;

/** The files of a stack or a snapshot, in chunks. Rejects with `ARTIFACT_INVALID`. */
export async function chunkedFiles(
  task: Task,
  artifact: Artifact,
  reader: BlobReader,
): Promise<readonly ChunkedFile[]> {
  if (artifact.artifactType !== SNAPSHOT_TYPE) return [chunkedImage(artifact)];
  return (await readSnapshot(task, artifact, reader)).files;
}

/** Rejects with `ARTIFACT_INVALID` unless all of it is what a snapshot can hold. */
export async function readSnapshot(
  task: Task,
  artifact: Artifact,
  reader: BlobReader,
): Promise<SnapshotArtifact> {
  const { sha256, sizeBytes } = contentOf(artifact);
  const text = await fetchText(task, artifact, sha256, reader);
  const record = parseManifest(text);
  if (record === undefined) throw invalid(`its ${SNAPSHOT_MANIFEST_FILE} cannot be read`);
  requireFit(record);
  if (totalBytes(record) !== sizeBytes)
    throw invalid(`the sizes in its ${SNAPSHOT_MANIFEST_FILE} differ from the size in its annotations`);
  return { text, record, files: filesOf(artifact, record) };
}

async function fetchText(
  task: Task,
  { layers }: Artifact,
  sha256: string,
  reader: BlobReader,
): Promise<string> {
  const [layer, ...more] = layers.filter(({ mediaType }) => mediaType === SNAPSHOT_MANIFEST_TYPE);
  if (layer === undefined || more.length > 0)
    throw invalid(`it must have exactly one layer with ${SNAPSHOT_MANIFEST_FILE}`);
  if (layer.digest !== `sha256:${sha256}`)
    throw invalid(`the digest of its ${SNAPSHOT_MANIFEST_FILE} differs from the one in its annotations`);
  if (layer.size > SNAPSHOT_MANIFEST_BYTES_LIMIT)
    throw invalid(
      `its ${SNAPSHOT_MANIFEST_FILE} has ${layer.size} bytes, more than ${SNAPSHOT_MANIFEST_BYTES_LIMIT}`,
    );
  const bytes = await fetchBlob(task, reader, layer);
  try {
    // Written again, the text has to have the same bytes.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid(`its ${SNAPSHOT_MANIFEST_FILE} is not UTF-8`);
  }
}

/** Somebody else wrote it, so it has to be what `snapshotSlot` makes. */
function requireFit({ vmId, stack, files }: SnapshotRecord): void {
  const [disk, ...others] = files;
  if (files.length > FILES_LIMIT)
    throw invalid(`its snapshot has ${files.length} files, more than ${FILES_LIMIT}`);
  if (disk?.name !== CLONE_ROOTFS_FILE)
    throw invalid(`the first file of its snapshot is not ${CLONE_ROOTFS_FILE}`);
  const names = files.map(({ name }) => name);
  const wrong = unfitName(names);
  if (wrong !== undefined) throw invalid(`its snapshot has a file named ${show(wrong)}`);
  if (others.some(({ sizeBytes }) => sizeBytes > FILE_BYTES_LIMIT))
    throw invalid(`its snapshot has a file of more than ${FILE_BYTES_LIMIT} bytes`);
  try {
    parseVmId(vmId);
    if (stack !== undefined) parseStackName(stack);
  } catch (error) {
    throw invalid(`its snapshot has an ${(error as Error).message}`);
  }
}

function filesOf({ layers }: Artifact, { files }: SnapshotRecord): ChunkedFile[] {
  const byFile = new Map<string, Layer[]>(files.map(({ name }) => [name, []]));
  for (const layer of layers) {
    if (layer.mediaType !== PACK_TYPE && layer.mediaType !== INDEX_TYPE) continue;
    const ofFile = byFile.get(layer.annotations[ANNOTATION.file] ?? '');
    if (ofFile === undefined) throw invalid('it has a layer of a file that its snapshot does not have');
    ofFile.push(layer);
  }
  return files.map(({ name, sizeBytes }) =>
    chunkedFile(byFile.get(name) as Layer[], sizeBytes, `file ${show(name)}`),
  );
}
