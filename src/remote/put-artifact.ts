// The last step of a push: the manifest, under its tag. Readers find the artifact from before or the whole new one.

import { hasCode, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, blobOf, digestOf, EMPTY_CONFIG, formatArtifact, type Layer } from './artifact.js';
import { sendBlob } from './push-image.js';
import { formatReference, type Reference } from './reference.js';
import type { Manifest, RegistryClient } from './registry-client.js';
import type { PushedArtifact } from './transfer-options.js';

/** What the artifact holds, as its annotations say. */
interface Content {
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** An artifact whose layers are in the registry. */
interface UploadedArtifact extends Content {
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
  const manifest = await formatArtifact(artifactType, layers, {
    [ANNOTATION.sha256]: sha256,
    [ANNOTATION.sizeBytes]: `${sizeBytes}`,
    ...annotations,
  });
  const digest = digestOf(manifest.bytes);
  await putVerified(task, client, reference.tag as string, manifest, digest);
  return {
    reference: formatReference(reference),
    digest,
    sha256,
    sizeBytes,
    uploadedBytes: uploadedBytes + (emptySent ? EMPTY_CONFIG.length : 0),
    reusedBytes: reusedBytes + (emptySent ? 0 : EMPTY_CONFIG.length),
  };
}

/**
 * Some registries say that they took a manifest, and have none. One of them is distribution with a cache of its blobs,
 * after a garbage collection (its issue 4702): it takes such a manifest as a blob.
 */
async function putVerified(
  task: Task,
  client: RegistryClient,
  tag: string,
  manifest: Manifest,
  digest: string,
): Promise<void> {
  const { bytes } = manifest;
  const isThere = async () => (await client.manifest(task, digest))?.bytes.equals(bytes) === true;
  await client.putManifest(task, tag, manifest).catch(async (error: unknown) => {
    // Where tags may not be changed, one that would stay as it is is refused as well (ECR, Harbor, Artifactory).
    const isBusy = hasCode(error, 'REGISTRY_BUSY');
    const found = isBusy ? undefined : await client.manifest(task, tag).catch(() => undefined);
    if (found?.bytes.equals(bytes) !== true) throw error;
  });
  if (await isThere()) return;
  await client.upload(task, digest, bytes.length, () => bytes);
  await client.putManifest(task, tag, manifest);
  if (await isThere()) return;
  throw new RootfsError(
    'REGISTRY_FAILED',
    `${client.host} accepted the manifest ${digest} but does not return it: ` +
      'check the address, and that the registry is well; if its garbage collector ran, restart it; then push again',
  );
}
