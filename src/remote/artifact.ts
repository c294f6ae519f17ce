// Artifacts and their manifests (OCI image specification 1.1).

import { createHash } from 'node:crypto';
import { RootfsError } from '../system/errors.js';
import { mapInSlices } from '../system/map-in-slices.js';
import { isSha256, isSha256Digest } from '../system/sha256.js';
import type { Blob } from './blob-reader.js';
import { parseLongJson } from './long-json.js';
import type { Manifest } from './registry-client.js';

export const STACK_TYPE = 'application/vnd.microvm-rootfs.stack.v1';
export const SNAPSHOT_TYPE = 'application/vnd.microvm-rootfs.snapshot.v1';
export const PACK_TYPE = 'application/vnd.microvm-rootfs.disk.v1.raw+zstd';
export const INDEX_TYPE = 'application/vnd.microvm-rootfs.index.v1';
/** The manifest of a snapshot, `SHA256SUMS`. */
export const SNAPSHOT_MANIFEST_TYPE = 'application/vnd.microvm-rootfs.snapshot-manifest.v1';
export const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

const INDEX_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
];

export const ANNOTATION = {
  sha256: 'vnd.microvm-rootfs.sha256',
  sizeBytes: 'vnd.microvm-rootfs.size',
  image: 'vnd.microvm-rootfs.image-config',
  /** Only of a template that others than its owner may not read. */
  private: 'vnd.microvm-rootfs.private',
  /** The file of the snapshot that a layer belongs to. */
  file: 'vnd.microvm-rootfs.file',
  /** The digest of the template that the disk of a snapshot descends from. */
  source: 'vnd.microvm-rootfs.source-sha256',
} as const;

export const EMPTY_CONFIG = Buffer.from('{}');

export interface Layer extends Blob {
  readonly mediaType: string;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface Artifact {
  readonly artifactType: string;
  readonly configType: string;
  readonly layers: readonly Layer[];
  readonly annotations: Readonly<Record<string, string>>;
}

/** An entry of an index: the manifest for one platform. */
export interface PlatformEntry {
  /** May be no SHA-256, which matters only if this entry is chosen. */
  readonly digest: string;
  readonly os: string;
  readonly architecture: string;
  readonly variant: string | undefined;
  /** What podman machine says of a disk: the hypervisor that it is for. */
  readonly diskType: string | undefined;
}

// A manifest of 4 MiB has room for some 20,000.
const LAYERS_LIMIT = 16_000;
/** No blob of an artifact is larger: 1 PiB. */
const SIZE_LIMIT = 2 ** 50;

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function blobOf(bytes: Buffer): Blob {
  return { digest: digestOf(bytes), size: bytes.length };
}

/** The same image gives the same bytes: there is no date, and the keys have a fixed order. */
export async function formatArtifact(
  artifactType: string,
  layers: readonly Layer[],
  annotations: Readonly<Record<string, string>>,
): Promise<Manifest> {
  const config = {
    mediaType: 'application/vnd.oci.empty.v1+json',
    ...blobOf(EMPTY_CONFIG),
    data: EMPTY_CONFIG.toString('base64'),
  };
  const head = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_TYPE, artifactType, config });
  const texts = await mapInSlices(layers, formatLayer);
  const rest = `"layers":[${texts.join()}],"annotations":${JSON.stringify(annotations)}}`;
  return { bytes: Buffer.from(`${head.slice(0, -1)},${rest}`), mediaType: MANIFEST_TYPE };
}

function formatLayer({ mediaType, digest, size, annotations }: Layer): string {
  const own = Object.keys(annotations).length === 0 ? {} : { annotations };
  return JSON.stringify({ mediaType, digest, size, ...own });
}

/** What the JSON of a manifest or an index holds. It is parsed once: a long one holds the event loop meanwhile. */
export type ManifestValue = Readonly<Record<string, unknown>>;

/** Rejects with `ARTIFACT_INVALID` for what is not a manifest, or is too old. `what` is used in the message. */
export async function parseManifest(bytes: Buffer, what: string): Promise<ManifestValue> {
  const wrong = (why: string) => new RootfsError('ARTIFACT_INVALID', `${what} is ${why}`);
  const start = bytes.subarray(0, 64).toString('latin1').trimStart();
  if (start.startsWith('<'))
    throw wrong(
      'a web page, not a manifest: check the host, and that no sign-in page or proxy answers for it',
    );
  if (start.startsWith('\x1f\x8b'))
    throw wrong(
      'compressed, although no compression was requested: disable it in the registry or in the proxy in front of it',
    );
  if (!start.startsWith('{'))
    throw wrong('not JSON, so it is not a manifest: check the host, and push the artifact again');
  const value = await parseJson(bytes);
  if (value.schemaVersion === 1)
    throw wrong('a manifest of schema 1, which is too old: push it again with a tool of today');
  return value;
}

/**
 * The entries of an index, or undefined for the manifest of one artifact. `mediaType` is that of the answer. Rejects
 * with `ARTIFACT_INVALID`.
 */
export async function indexOf(value: ManifestValue, mediaType: string): Promise<PlatformEntry[] | undefined> {
  const type = typeof value.mediaType === 'string' ? value.mediaType : mediaType;
  // Some registries and file servers know no type but that of JSON.
  const looksLikeOne = value.mediaType === undefined && value.layers === undefined && 'manifests' in value;
  if (!INDEX_TYPES.includes(type) && !looksLikeOne) return undefined;
  if (!Array.isArray(value.manifests)) throw invalid('its index lists nothing');
  return mapInSlices(value.manifests, (entry) => {
    const { platform, annotations } = objectOf(entry);
    const { os, architecture, variant } = objectOf(platform ?? {});
    return {
      digest: textOf(objectOf(entry).digest),
      os: textOf(os),
      architecture: textOf(architecture),
      variant: optional(variant),
      diskType: optional(textsOf(annotations).disktype),
    };
  });
}

/** Rejects with `ARTIFACT_INVALID`. `urls` of layers are ignored: bytes come from the registry only. */
export async function artifactOf(value: ManifestValue): Promise<Artifact> {
  const { layers } = value;
  if (!Array.isArray(layers) || layers.length === 0) throw invalid('it has no layers');
  if (layers.length > LAYERS_LIMIT)
    throw invalid(`it has ${layers.length} layers, more than ${LAYERS_LIMIT}`);
  const configType = textOf(objectOf(value.config ?? {}).mediaType);
  return {
    artifactType: typeof value.artifactType === 'string' ? value.artifactType : configType,
    configType,
    layers: await mapInSlices(layers, layerOf),
    annotations: textsOf(value.annotations),
  };
}

/** What an artifact of ours says of its content. Throws `ARTIFACT_INVALID`. */
export function contentOf({ annotations }: Pick<Artifact, 'annotations'>): {
  sha256: string;
  sizeBytes: number;
} {
  const sha256 = annotations[ANNOTATION.sha256] ?? '';
  const size = annotations[ANNOTATION.sizeBytes] ?? '';
  const sizeBytes = /^[0-9]+$/.test(size) ? Number(size) : Number.NaN;
  if (!isSha256(sha256)) throw invalid('its manifest lacks the SHA-256 of the image');
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0)
    throw invalid('its manifest lacks the size of the image');
  return { sha256, sizeBytes };
}

function layerOf(value: unknown): Layer {
  const { digest, size, mediaType, annotations } = objectOf(value);
  if (!isSha256Digest(digest)) throw invalid('its manifest has a digest that is not a SHA-256');
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0 || size > SIZE_LIMIT)
    throw invalid('its manifest has a blob without a valid size');
  return { digest, size, mediaType: textOf(mediaType), annotations: textsOf(annotations) };
}

async function parseJson(bytes: Buffer): Promise<ManifestValue> {
  let value: unknown;
  try {
    value = await parseLongJson(bytes);
  } catch {
    throw invalid('its manifest is not JSON');
  }
  return objectOf(value);
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw invalid('its manifest is not an OCI manifest');
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function optional(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function textsOf(value: unknown): Record<string, string> {
  const entries = Object.entries(objectOf(value ?? {}));
  return Object.fromEntries(
    entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}

export function invalid(why: string): RootfsError {
  return new RootfsError('ARTIFACT_INVALID', `the artifact cannot be used: ${why}`);
}
