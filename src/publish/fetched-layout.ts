// The OCI layout that skopeo fetched into the work folder: one image, read by its digests.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { RootfsError } from '../system/errors.js';
import { writeOfMode } from '../system/make-files.js';

/**
 * The OCI specification defines the shape of a layout. Anything that does not match it throws, and the caller catches
 * that.
 */
// biome-ignore lint/suspicious/noExplicitAny: checked as it is used
export type Json = any;

export interface FetchedImage {
  readonly manifest: Json;
  readonly config: Json;
}

const CONFIG = 'application/vnd.oci.image.config.v1+json';

/** `source` is for messages. Rejects with `ARTIFACT_INVALID` for what is not a container image. */
export async function readFetched(layout: string, source: string): Promise<FetchedImage> {
  try {
    const index = await readJson(join(layout, 'index.json'));
    const manifest = await readJson(blobPath(layout, index.manifests[0].digest));
    requireImage(manifest, source);
    const config = await readJson(blobPath(layout, manifest.config.digest));
    if (typeof config === 'object' && config !== null) return { manifest, config };
    throw new Error('its config is not an object');
  } catch (error) {
    if (error instanceof RootfsError) throw error;
    throw invalid(source, 'no container image: its config cannot be read', error);
  }
}

/** Registries hold more than container images. The config of such an artifact has another type, or is empty. */
function requireImage({ artifactType, config }: Json, source: string): void {
  if ([CONFIG, 'application/vnd.docker.container.image.v1+json'].includes(config.mediaType)) return;
  const type = String(artifactType || config.mediaType);
  const [, ours] = /^application\/vnd\.microvm-rootfs\.(stack|snapshot)\./.exec(type) ?? [];
  if (ours === 'stack') throw invalid(source, 'a stack, not a container image: pull it with pullStack');
  if (ours === 'snapshot')
    throw invalid(source, 'a snapshot, not a container image: pull it with pullSnapshot');
  throw invalid(
    source,
    `of type ${type}, no container image: if its layer is a disk, pull it with pullStack; ` +
      'if it holds files, fetch them with the tool that pushed it, and publish the folder',
  );
}

function invalid(source: string, what: string, cause?: unknown): RootfsError {
  return new RootfsError('ARTIFACT_INVALID', `${source} is ${what}`, { path: source, cause });
}

/** Throws for what is not a digest: it must not lead out of the layout. */
export function blobPath(layout: string, digest: unknown): string {
  const [, algorithm, hex] = /^([a-z0-9]+):([0-9a-f]+)$/.exec(String(digest)) ?? [];
  if (algorithm === undefined || hex === undefined) throw new Error(`${digest} is not a digest`);
  return join(layout, 'blobs', algorithm, hex);
}

/** Makes the layout's image one with these layers. */
export async function writeLayers(layout: string, old: Json, layers: readonly Json[]): Promise<void> {
  // umoci takes no other type, and docker's names the same document.
  const manifest = { ...old, config: { ...old.config, mediaType: CONFIG }, layers };
  const path = join(layout, 'index.json');
  const index = await readJson(path);
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  await writeOfMode(blobPath(layout, digest), bytes);
  const first = { ...index.manifests[0], digest, size: bytes.length };
  await writeOfMode(path, JSON.stringify({ ...index, manifests: [first] }));
}

async function readJson(path: string): Promise<Json> {
  return JSON.parse(await readFile(path, 'utf8'));
}
