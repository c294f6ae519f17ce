// Finds the image that `oci:DIR` or `oci:DIR:TAG` names. What is wrong with a layout is said here: skopeo's words are
// those of a registry, and name no tags.

import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { RootfsError, type RootfsErrorCode } from '../system/errors.js';
import type { Json } from './fetched-layout.js';

const REF_NAME = 'org.opencontainers.image.ref.name';
const TAGS_NAMED = 10;

export interface LocalImage {
  /** The folder of the layout. */
  readonly path: string;
  readonly tag: string | undefined;
}

/** Rejects with `REFERENCE_INVALID`, `REGISTRY_NOT_FOUND`, `ARTIFACT_INVALID`, or the system's error. */
export async function findLocalImage(source: string): Promise<LocalImage> {
  const { path, tag } = await partsOf(source);
  const manifests = await manifestsIn(source, path);
  const tags = manifests.map((manifest) => manifest?.annotations?.[REF_NAME]).filter(isText);
  if (tag === undefined ? manifests.length === 1 : tags.includes(tag)) return { path, tag };
  if (tag !== undefined) throw refused('REGISTRY_NOT_FOUND', source, `has no such tag; ${named(tags)}`);
  if (manifests.length === 0) throw refused('ARTIFACT_INVALID', source, 'contains no image: create it again');
  const why = `holds ${manifests.length} images: name a tag, as in oci:DIR:TAG; ${named(tags)}`;
  throw refused('REFERENCE_INVALID', source, why);
}

/** The first colon that follows a layout begins the tag, which may hold colons too. */
async function partsOf(source: string): Promise<LocalImage> {
  const parts = source.slice('oci:'.length).split(':');
  if (parts[0] === '')
    throw refused('REFERENCE_INVALID', source, 'names no folder: give oci:DIR or oci:DIR:TAG');
  for (let end = 1; end <= parts.length; end++) {
    const path = parts.slice(0, end).join(':');
    if (await isLayout(path)) return { path, tag: parts.slice(end).join(':') || undefined };
  }
  // skopeo would create an empty layout. Name the path that the usual tag leaves.
  const [, path = ''] = /^oci:(.+?)(:[^/:]*)?$/.exec(source) ?? [];
  await stat(join(path, 'index.json'));
  return { path, tag: undefined };
}

function isLayout(path: string): Promise<boolean> {
  return stat(join(path, 'index.json')).then(
    () => true,
    () => false,
  );
}

async function manifestsIn(source: string, path: string): Promise<readonly Json[]> {
  const text = await readFile(join(path, 'index.json'), 'utf8');
  try {
    const { manifests } = JSON.parse(text);
    if (Array.isArray(manifests)) return manifests;
  } catch {
    // The parser's words say less.
  }
  throw refused('ARTIFACT_INVALID', source, 'is not an OCI layout: its index.json lists no images');
}

function named(tags: readonly string[]): string {
  if (tags.length === 0) return 'it has none: write the layout again, with a tag';
  const more = tags.length > TAGS_NAMED ? ` and ${tags.length - TAGS_NAMED} more` : '';
  return `it has ${tags.slice(0, TAGS_NAMED).join(', ')}${more}`;
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function refused(code: RootfsErrorCode, source: string, why: string): RootfsError {
  return new RootfsError(code, `${source} ${why}`, { path: source });
}
