// Fetches a container image with skopeo. skopeo tries again only after few failures, does not end when a registry
// falls silent, and knows no mirrors of ours. So it is run again here; the layers that it has fetched serve again.

import { readdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { runInstalled } from '../programs/run-program.js';
import { absolutePath } from '../system/arguments.js';
import { backOffMs, MIRROR_TRIES, MOST_TRIES, pauseFor } from '../system/back-off.js';
import { hasCode, RootfsError } from '../system/errors.js';
import { writeOfMode } from '../system/make-files.js';
import { makeFolders } from '../system/make-folders.js';
import { redact, withoutQueries } from '../system/redact.js';
import type { RegistrySettings } from '../system/registry-settings.js';
import type { Task } from '../system/task.js';
import { layersTooLarge } from './count-layers.js';
import { secretsIn } from './credentials.js';
import { parseDockerReference } from './docker-reference.js';
import { growsUntilEnd } from './growth.js';
import { findLocalImage } from './local-layout.js';
import type { Platform } from './platform.js';
import { limitsOf, type PublishLimits } from './publish-options.js';
import { forgetLogins, NO_LOGIN, type RegistryAccess, skopeoAccess } from './skopeo-access.js';
import { skopeoFailed, triesOf } from './skopeo-failure.js';

const SKOPEO = { name: 'skopeo', package: 'skopeo', notFound: 'PROGRAM_NOT_FOUND' } as const;

// Names in the work folder. They are relative because in `oci:PATH:TAG` a colon in the path would end the path.
export const LAYOUT = 'oci';
export const TAG = 'image';
const ONE_IMAGE = 'source';

const OF_COPY = [
  // It has checked them by its policy. A layout cannot hold them, and the copy of a signed image would fail.
  '--remove-signatures',
  // It would compress plain layers, only for umoci to decompress them.
  '--dest-oci-accept-uncompressed-layers',
] as const;

/** Long, because skopeo may flush a layer to a slow disk, or wait as long as a busy registry asks for. */
const SILENCE_MS = 300_000;

/** Manifests and the config, and what a compression adds to bytes that cannot be compressed. */
const BESIDE_LAYERS_BYTES = 16 * 1024 * 1024;
const BESIDE_LAYERS_SHARE = 0.01;

/**
 * To be asked before skopeo is run. Rejects with `REGISTRY_UNAUTHORIZED` if there is no access, or the registry names a
 * token service that may not get the login, with `REGISTRY_BUSY` or `REGISTRY_FAILED`.
 */
export type RegistryCheck = (
  task: Task,
  host: string,
  repository: string,
  isMirror: boolean,
) => Promise<RegistryAccess>;

export interface FetchRequest {
  readonly source: string;
  readonly workFolder: string;
  readonly platform: Platform;
  readonly registries: RegistrySettings;
  /** Without it, TLS is asked for, and no login is sent. */
  readonly checkRegistry?: RegistryCheck | undefined;
  readonly limits?: Pick<PublishLimits, 'maxBytes'>;
  readonly silenceMs?: number;
}

/** A place to fetch from. */
interface Origin {
  readonly name: string;
  /** Undefined for a layout. */
  readonly registry: { readonly host: string; readonly repository: string } | undefined;
}

/** What skopeo needs to fetch from there. */
interface Access {
  readonly options: readonly string[];
  readonly allowed: RegistryAccess;
}

interface Failure {
  readonly error: RootfsError;
  /** How often it may happen before it is the answer. */
  readonly tries: number;
}

/** Makes the layout in the work folder. Rejects as `publishStack` does for a container image. */
export async function fetchImage(task: Task, request: FetchRequest): Promise<void> {
  try {
    await fetchFrom(task, request, await originsOf(request));
  } finally {
    await forgetLogins(request.workFolder);
  }
}

async function fetchFrom(task: Task, request: FetchRequest, origins: readonly Origin[]): Promise<void> {
  await makeFolders(join(request.workFolder, LAYOUT), 0o700);
  for (const [i, origin] of origins.entries()) {
    const isMirror = i < origins.length - 1;
    try {
      return await persist(task, request, origin, isMirror);
    } catch (error) {
      if (!isMirror || !isOfRegistry(error)) throw error;
    }
  }
}

/** Mirrors first, the registry last. */
async function originsOf(request: FetchRequest): Promise<Origin[]> {
  const { source, registries } = request;
  if (source.startsWith('oci:')) return [{ name: await layoutOf(request), registry: undefined }];
  const { host, image } = parseDockerReference(source);
  const [repository = ''] = image.split(/[:@]/);
  const hosts = [...(registries[host]?.mirrors ?? []), host];
  return hosts.map((each) => ({
    name: `docker://${each}/${image}`,
    registry: { host: each, repository },
  }));
}

async function accessTo(
  task: Task,
  { workFolder, registries, checkRegistry }: FetchRequest,
  { registry }: Origin,
  isMirror: boolean,
): Promise<Access> {
  if (registry === undefined) return { options: [], allowed: NO_LOGIN };
  const { host, repository } = registry;
  const allowed = (await checkRegistry?.(task, host, repository, isMirror)) ?? NO_LOGIN;
  return { options: await skopeoAccess(allowed, registries[host]?.ca, host, workFolder), allowed };
}

/**
 * A layout of the one image, with a link to the blobs: skopeo takes what follows the first colon of a path as the tag,
 * and asks for no platform in index.json itself.
 */
async function layoutOf({ source, workFolder, platform }: FetchRequest): Promise<string> {
  const { path, descriptor } = await findLocalImage(source, platform);
  const folder = join(workFolder, ONE_IMAGE);
  await makeFolders(folder, 0o700);
  await symlink(join(absolutePath('source', path), 'blobs'), join(folder, 'blobs'));
  await writeOfMode(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeOfMode(
    join(folder, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }),
  );
  return `oci:${ONE_IMAGE}`;
}

async function persist(task: Task, request: FetchRequest, origin: Origin, isMirror: boolean): Promise<void> {
  const layout = join(request.workFolder, LAYOUT);
  let blobs = await blobsIn(layout);
  for (let tries = 1; ; tries++) {
    // Each time, because a token lasts for minutes.
    const access = await accessTo(task, request, origin, isMirror);
    const failure = await copy(task, request, origin, access);
    if (failure === undefined) return;
    await removeUnfinished(layout);
    const before = blobs;
    blobs = await blobsIn(layout);
    // The token has expired while layers arrived.
    if (failure.error.code === 'REGISTRY_UNAUTHORIZED' && blobs > before) tries = 0;
    else if (tries >= Math.min(failure.tries, isMirror ? MIRROR_TRIES : MOST_TRIES)) throw failure.error;
    else await pauseFor(task, backOffMs(tries));
  }
}

async function blobsIn(layout: string): Promise<number> {
  const names = await readdir(join(layout, 'blobs/sha256')).catch(() => []);
  return names.length;
}

async function copy(
  task: Task,
  request: FetchRequest,
  { name, registry }: Origin,
  access: Access,
): Promise<Failure | undefined> {
  const { source, workFolder } = request;
  const { os, architecture, variant } = request.platform;
  const args = [
    ...['--override-os', os, '--override-arch', architecture],
    ...(variant === undefined ? [] : ['--override-variant', variant]),
    ...['copy', '--quiet', ...OF_COPY, ...access.options, name, `oci:${LAYOUT}:${TAG}`],
  ];
  const isRemote = registry !== undefined;
  // With the whole environment, which its credential helpers may need. What it copies is verified by digests.
  const options = {
    ...{ cwd: workFolder, env: process.env, diesWithUs: true },
    drain: (stdout: Readable) => watch(stdout, request),
  };
  try {
    const ended = await runInstalled(SKOPEO, args, task.signal, options);
    if (ended.status === 0) return undefined;
    const { credentials, token, trouble, mayPass } = access.allowed;
    const secrets = [...secretsIn(credentials), ...(token === undefined ? [] : [token])];
    const exit = { ...ended, stderr: redact(withoutQueries(ended.stderr), secrets) };
    const error = skopeoFailed(SKOPEO.name, source, exit, { name, trouble });
    const isRefused = error.code === 'REGISTRY_UNAUTHORIZED' && mayPass;
    const tries = isRefused ? MOST_TRIES : triesOf(exit, name);
    return { error, tries: isRemote ? tries : 1 };
  } catch (error) {
    if (hasCode(error, 'SOURCE_TOO_LARGE')) return { error, tries: 1 };
    if (!hasCode(error, 'REGISTRY_FAILED')) throw error;
    return { error, tries: MOST_TRIES };
  }
}

/**
 * skopeo itself waits for ever, and takes a layer that does not end, until the disk is full. Rejects, which ends it:
 * with `REGISTRY_FAILED`, of a layout `ARTIFACT_INVALID`, if nothing more arrives, `SOURCE_TOO_LARGE` if too much does.
 */
async function watch(
  stdout: Readable,
  { source, workFolder, limits, silenceMs = SILENCE_MS }: FetchRequest,
): Promise<void> {
  const { maxBytes } = limitsOf(limits);
  const most = maxBytes * (1 + BESIDE_LAYERS_SHARE) + BESIDE_LAYERS_BYTES;
  const outcome = await growsUntilEnd(stdout, join(workFolder, LAYOUT), silenceMs, most);
  if (outcome === 'ended') return;
  if (outcome === 'too large') throw layersTooLarge(source, maxBytes);
  const [code, advice] = source.startsWith('oci:')
    ? (['ARTIFACT_INVALID', 'check that all its blobs are files, and the disk that it is on'] as const)
    : (['REGISTRY_FAILED', 'check the network, the proxy and that the registry runs'] as const);
  throw new RootfsError(code, `${source}: no byte came for ${silenceMs / 1000} s; ${advice}`, {
    path: source,
  });
}

/** What skopeo leaves when it is killed. It writes a layer under such a name first. */
async function removeUnfinished(layout: string): Promise<void> {
  for (const name of await readdir(layout)) if (name.startsWith('oci-put-blob')) await rm(join(layout, name));
}

/**
 * Whether another host may do better. skopeo 1.9 calls the name of a mirror at `[::1]` invalid, and its policy and its
 * registries.conf may refuse one host alone.
 */
function isOfRegistry(error: unknown): boolean {
  return (
    error instanceof RootfsError &&
    /^REGISTRY_|^(REFERENCE_INVALID|ARTIFACT_INVALID|DIGEST_MISMATCH|PROGRAM_FAILED|SOURCE_TOO_LARGE)$/.test(
      error.code,
    )
  );
}
