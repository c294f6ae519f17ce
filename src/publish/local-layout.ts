// Finds the image that `oci:DIR` or `oci:DIR:TAG` names. What is wrong with a layout is said here: skopeo's words are
// those of a registry, and name no tags.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readBytes } from '../image/read-bytes.js';
import { isGone, RootfsError, type RootfsErrorCode } from '../system/errors.js';
import type { Json } from './fetched-layout.js';
import { type Platform, platformName } from './platform.js';

const REF_NAME = 'org.opencontainers.image.ref.name';
const TAGS_NAMED = 10;
/** Room for some 50,000 images. */
const INDEX_BYTES_LIMIT = 16 * 1024 * 1024;

interface LocalImage {
  /** The folder of the layout. */
  readonly path: string;
  /** What its index.json says of the image. */
  readonly descriptor: Json;
}

/** Rejects with `REFERENCE_INVALID`, `REGISTRY_NOT_FOUND`, `ARTIFACT_INVALID`, or the system's error. */
export async function findLocalImage(source: string, wanted: Platform): Promise<LocalImage> {
  const { path, tag } = await partsOf(source);
  const manifests = await manifestsIn(source, path);
  const tags = manifests.map(tagOf).filter(isText);
  if (manifests.length === 0) throw refused('ARTIFACT_INVALID', source, 'contains no image: create it again');
  const asked = tag === undefined ? manifests : manifests.filter((manifest) => tagOf(manifest) === tag);
  if (asked.length === 0) throw refused('REGISTRY_NOT_FOUND', source, `has no such tag; ${named(tags)}`);
  const isOneImage = asked.every((manifest) => tagOf(manifest) === tagOf(asked[0]));
  const fitting = isOneImage ? forPlatform(source, asked, wanted) : asked;
  // An image may have several tags, and two images the same: docker save keeps the tag of NAME:TAG alone.
  if (fitting.every((manifest) => manifest?.digest === fitting[0]?.digest))
    return { path, descriptor: fitting[0] };
  if (tag !== undefined)
    throw refused(
      'REFERENCE_INVALID',
      source,
      `names ${fitting.length} images with this tag: save each alone`,
    );
  const why = `holds ${fitting.length} images: name a tag, as in oci:DIR:TAG; ${named(tags)}`;
  throw refused('REFERENCE_INVALID', source, why);
}

/** The specification lets index.json itself be the index of an image for several platforms. */
function forPlatform(source: string, manifests: readonly Json[], wanted: Platform): readonly Json[] {
  // Attestations are for unknown/unknown.
  const listed = manifests.filter((manifest) => manifest?.platform && manifest.platform.os !== 'unknown');
  if (manifests.length === 1 || listed.length === 0) return manifests;
  const ofMachine = listed.filter(
    ({ platform: { os, architecture } }) => os === wanted.os && architecture === wanted.architecture,
  );
  const withVariant = (variant: unknown) => ofMachine.filter(({ platform }) => platform.variant === variant);
  const exact = withVariant(wanted.variant);
  // What names no variant is for all of them. Of several variants the first is taken, as of those in an index.
  const fitting = exact.length > 0 ? exact : withVariant(undefined);
  if (fitting.length > 0) return fitting;
  if (wanted.variant === undefined && ofMachine.length > 0) return ofMachine.slice(0, 1);
  const there = listed.map(({ platform }) => platformName(platform)).join(', ');
  throw refused(
    'ARTIFACT_INVALID',
    source,
    `has no image for ${platformName(wanted)}, only for ${there}: choose one of these`,
  );
}

/** The first colon that follows a layout begins the tag, which may hold colons too. */
async function partsOf(source: string): Promise<{ readonly path: string; readonly tag: string | undefined }> {
  const parts = source.slice('oci:'.length).split(':');
  if (parts[0] === '')
    throw refused('REFERENCE_INVALID', source, 'names no folder: give oci:DIR or oci:DIR:TAG');
  for (let end = 1; end <= parts.length; end++) {
    const path = parts.slice(0, end).join(':');
    if (await isLayout(path)) return { path, tag: parts.slice(end).join(':') || undefined };
  }
  // skopeo would create an empty layout. Name the path that the usual tag leaves.
  const [, path = ''] = /^oci:(.+?)(:[^/:]*)?$/.exec(source) ?? [];
  const index = join(path, 'index.json');
  await stat(index).catch((error) => {
    throw isGone(error) ? notALayout(source, index, error) : error;
  });
  return { path, tag: undefined };
}

function notALayout(source: string, index: string, error: NodeJS.ErrnoException): RootfsError {
  return new RootfsError(
    'ENOENT',
    `${source} is not an OCI layout: there is no file ${index}. ` +
      'Name the folder of one; skopeo copy docker://NAME:TAG oci:DIR makes it',
    { errno: error.errno, syscall: error.syscall, path: index, cause: error },
  );
}

function isLayout(path: string): Promise<boolean> {
  return stat(join(path, 'index.json')).then(
    () => true,
    () => false,
  );
}

async function manifestsIn(source: string, path: string): Promise<readonly Json[]> {
  const index = join(path, 'index.json');
  const found = await stat(index);
  // To open a FIFO would take one of Node's threads until somebody writes to it.
  if (!found.isFile() || found.size > INDEX_BYTES_LIMIT) {
    const why = `is not an OCI layout: its index.json is not a file, or has more than ${INDEX_BYTES_LIMIT} bytes`;
    throw refused('ARTIFACT_INVALID', source, why);
  }
  const bytes = await readBytes(index, 0, found.size);
  try {
    const { manifests } = JSON.parse(bytes.toString('utf8'));
    if (Array.isArray(manifests)) return manifests;
  } catch {
    // The parser's words say less.
  }
  throw refused('ARTIFACT_INVALID', source, 'is not an OCI layout: its index.json lists no images');
}

function tagOf(manifest: Json): unknown {
  return manifest?.annotations?.[REF_NAME];
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
