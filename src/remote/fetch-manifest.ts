// Gets the manifest that a reference names: from a mirror that has it, verified by its digest, for one platform.

import { type Platform, parsePlatform, platformName } from '../publish/platform.js';
import { RootfsError } from '../system/errors.js';
import { isSha256Digest } from '../system/sha256.js';
import type { Task } from '../system/task.js';
import {
  digestOf,
  indexOf,
  invalid,
  type ManifestValue,
  type PlatformEntry,
  parseManifest,
} from './artifact.js';
import { formatReference, type Reference } from './reference.js';
import type { Manifest, RegistryClient } from './registry-client.js';
import { isUnavailable } from './retry.js';

const DEPTH_LIMIT = 3;

interface FetchedManifest extends Manifest {
  readonly digest: string;
  readonly value: ManifestValue;
}

/** Rejects with `REGISTRY_NOT_FOUND`, `DIGEST_MISMATCH`, `ARTIFACT_INVALID` (wrong platform), or the client's codes. */
export async function fetchManifest(
  task: Task,
  clients: readonly RegistryClient[],
  reference: Reference,
  platform: string | undefined,
): Promise<FetchedManifest> {
  const asked = reference.digest ?? (reference.tag as string);
  let found = await fromFirst(task, clients, reference, asked);
  // An image with an SBOM for each platform is an index of indexes.
  for (let depth = 0; ; depth++) {
    const entries = await indexOf(found.value, found.mediaType);
    if (entries === undefined) return found;
    if (depth > DEPTH_LIMIT) throw invalid(`it is an index in more than ${DEPTH_LIMIT} others`);
    const { digest } = choose(entries, parsePlatform(platform), reference);
    if (!isSha256Digest(digest)) throw invalid(`its index has a digest that is not a SHA-256: ${digest}`);
    found = await fromFirst(task, clients, reference, digest);
  }
}

async function fromFirst(
  task: Task,
  clients: readonly RegistryClient[],
  reference: Reference,
  asked: string,
): Promise<FetchedManifest> {
  for (const client of clients) {
    const isLast = client === clients.at(-1);
    if (client.isDown) continue;
    try {
      const manifest = await verified(task, client, reference, asked);
      if (manifest !== undefined) return manifest;
      if (isLast) throw notFound(reference);
    } catch (error) {
      if (isLast || task.signal?.aborted) throw error;
      client.isDown = isUnavailable(error);
    }
  }
  throw notFound(reference);
}

/** Undefined if the registry has none. A registry that sends another one than was asked for is asked once more. */
async function verified(
  task: Task,
  client: RegistryClient,
  reference: Reference,
  asked: string,
): Promise<FetchedManifest | undefined> {
  for (let tries = 1; ; tries++) {
    const manifest = await client.manifest(task, asked);
    if (manifest === undefined) return undefined;
    const digest = digestOf(manifest.bytes);
    // The digest first: what came in its place says nothing about the artifact.
    if (!isSha256Digest(asked) || asked === digest) {
      const what = `what ${client.host} sends for ${formatReference(reference)}`;
      return { ...manifest, digest, value: await parseManifest(manifest.bytes, what) };
    }
    if (tries === 1 && !client.isMirror) continue;
    throw new RootfsError(
      'DIGEST_MISMATCH',
      `${client.host} sends a manifest with the digest ${digest} for ${formatReference(reference)}: ` +
        'the registry is damaged; push the artifact again',
    );
  }
}

const DISK_TYPES = ['raw', 'qemu'];

/** Names of architectures as the disks of podman machine have them. */
const OTHER_NAMES: Readonly<Record<string, string>> = { amd64: 'x86_64', arm64: 'aarch64' };

function choose(entries: readonly PlatformEntry[], wanted: Platform, reference: Reference): PlatformEntry {
  const ofMachine = entries.filter(
    ({ os, architecture }) =>
      os === wanted.os &&
      (architecture === wanted.architecture || architecture === OTHER_NAMES[wanted.architecture]),
  );
  const exact = ofMachine.filter(({ variant }) => (wanted.variant ?? variant) === variant);
  // What names no variant is for all of them, as skopeo takes it.
  const fitting = exact.length > 0 ? exact : ofMachine.filter(({ variant }) => variant === undefined);
  // podman machine has one disk for each hypervisor, beside a container image.
  const found = fitting.find(({ diskType }) => DISK_TYPES.includes(diskType ?? '')) ?? fitting[0];
  if (found !== undefined) return found;
  const [only, ...others] = entries;
  if (only?.os === '' && others.length === 0) return only;
  // Attestations are for unknown/unknown.
  const there = entries.map(platformName).filter((name) => name !== '' && name !== 'unknown/unknown');
  throw new RootfsError(
    'ARTIFACT_INVALID',
    `${formatReference(reference)} has nothing for ${platformName(wanted)}` +
      (there.length > 0
        ? `, only ${there.join(', ')}: choose one of these`
        : ': its index names no platform; give one of its manifests by digest'),
  );
}

function notFound(reference: Reference): RootfsError {
  return new RootfsError(
    'REGISTRY_NOT_FOUND',
    `there is no ${formatReference(reference)}: check the name, the tag and this host's access rights`,
  );
}
