// The last step of a push: the manifest, under its tag. Readers find the artifact from before or the whole new one.

import type { Task } from '../system/task.js';
import { ANNOTATION, blobOf, digestOf, EMPTY_CONFIG, formatArtifact, type Layer } from './artifact.js';
import { sendBlob } from './push-image.js';
import { formatReference, type Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import type { PushedArtifact } from './transfer-options.js';

/** What the artifact holds, as its annotations say. */
export interface Content {
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** An artifact whose layers are in the registry. */
export interface UploadedArtifact extends Content {
  readonly artifactType: string;
  readonly layers: readonly Layer[];
  /** Further annotations. */
  readonly annotations: Readonly<Record<string, string>>;
  readonly uploadedBytes: number;
  readonly reusedBytes: number;
}

export async function putArtifact(
  task: Task,
  client: RegistryClient,
  reference: Reference,
  { artifactType, layers, sha256, sizeBytes, annotations, uploadedBytes, reusedBytes }: UploadedArtifact,
): Promise<PushedArtifact & Content> {
  const emptySent = await sendBlob(task, client, blobOf(EMPTY_CONFIG), () => EMPTY_CONFIG);
  const manifest = formatArtifact(artifactType, layers, {
    [ANNOTATION.sha256]: sha256,
    [ANNOTATION.sizeBytes]: `${sizeBytes}`,
    ...annotations,
  });
  await client.putManifest(task, reference.tag as string, manifest);
  return {
    reference: formatReference(reference),
    digest: digestOf(manifest.bytes),
    sha256,
    sizeBytes,
    uploadedBytes: uploadedBytes + (emptySent ? EMPTY_CONFIG.length : 0),
    reusedBytes: reusedBytes + (emptySent ? 0 : EMPTY_CONFIG.length),
  };
}
