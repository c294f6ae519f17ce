// The OCI layout that skopeo fetched into the work folder: one image, read by its digests.

import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

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

export async function readFetched(layout: string): Promise<FetchedImage> {
  const index = await readJson(join(layout, 'index.json'));
  const manifest = await readJson(blobPath(layout, index.manifests[0].digest));
  return { manifest, config: await readJson(blobPath(layout, manifest.config.digest)) };
}

/** Throws for what is no digest: it must not lead out of the layout. */
export function blobPath(layout: string, digest: unknown): string {
  const [, algorithm, hex] = /^([a-z0-9]+):([0-9a-f]+)$/.exec(String(digest)) ?? [];
  if (algorithm === undefined || hex === undefined) throw new Error(`${digest} is no digest`);
  return join(layout, 'blobs', algorithm, hex);
}

/** Makes the layout's image one with this manifest. */
export async function writeManifest(layout: string, manifest: Json): Promise<void> {
  const path = join(layout, 'index.json');
  const index = await readJson(path);
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  await writeFile(blobPath(layout, digest), bytes);
  const first = { ...index.manifests[0], digest, size: bytes.length };
  await writeFile(path, JSON.stringify({ ...index, manifests: [first] }));
}

async function readJson(path: string): Promise<Json> {
  return JSON.parse(await readFile(path, 'utf8'));
}
