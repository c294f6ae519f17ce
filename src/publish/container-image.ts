// Turns a container image (from a registry or an OCI layout) into a root filesystem folder. skopeo fetches it, umoci
// applies its layers.

import { mkdir, readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type ImageConfig, parseImageConfig } from '../catalog/image-config.js';
import type { RegistrySettings } from '../system/config.js';
import { RootfsError, type RootfsErrorCode } from '../system/errors.js';
import { type Exit, programFailed, runInstalled } from '../system/programs.js';
import type { Task } from '../system/task.js';
import { type Platform, parsePlatform, platformName } from './platform.js';
import { skopeoAccess } from './skopeo-access.js';

const SKOPEO = { name: 'skopeo', package: 'skopeo', notFound: 'PROGRAM_NOT_FOUND' } as const;
const UMOCI = { name: 'umoci', package: 'umoci', notFound: 'PROGRAM_NOT_FOUND' } as const;

// Names in the work folder. They are relative because in `oci:PATH:TAG` a colon in the path would end the path.
const LAYOUT = 'oci';
const TAG = 'image';

export interface UnpackedImage {
  readonly tree: string;
  readonly config: ImageConfig;
}

/** Matches `docker://…`, `oci:DIR` and `oci:DIR:TAG`. To pass a file whose name looks like that, write `./oci:…`. */
export function isContainerImage(source: string): boolean {
  return typeof source === 'string' && /^(docker:\/\/|oci:)/.test(source);
}

/**
 * Rejects with `EPERM` unless run as root, `PROGRAM_NOT_FOUND`, `REFERENCE_INVALID`, `REGISTRY_NOT_FOUND`,
 * `REGISTRY_UNAUTHORIZED`, `REGISTRY_FAILED`, or `ARTIFACT_INVALID` (damaged, or for another platform).
 */
export async function unpackContainerImage(
  task: Task,
  source: string,
  workFolder: string,
  platform: string | undefined,
  registries: RegistrySettings,
): Promise<UnpackedImage> {
  requireRoot(source);
  const wanted = parsePlatform(platform);
  await fetchImage(task, source, workFolder, wanted, registries);
  const config = await readConfig(join(workFolder, LAYOUT), source);
  requirePlatform(config, wanted, source);
  const args = ['raw', 'unpack', '--image', `${LAYOUT}:${TAG}`, 'tree'];
  const exit = await runInstalled(UMOCI, args, task.signal, { cwd: workFolder, usualUmask: true });
  if (exit.status !== 0) throw programFailed('ARTIFACT_INVALID', UMOCI.name, source, exit);
  return { tree: join(workFolder, 'tree'), config };
}

function requireRoot(source: string): void {
  if (process.geteuid?.() === 0) return;
  throw new RootfsError(
    'EPERM',
    `unpacking ${source} needs root, to keep owners and devices: run as root, or publish an image`,
    { path: source },
  );
}

async function fetchImage(
  task: Task,
  source: string,
  workFolder: string,
  { os, architecture, variant }: Platform,
  registries: RegistrySettings,
): Promise<void> {
  await requireLayout(source);
  await mkdir(join(workFolder, LAYOUT));
  const access = await skopeoAccess(source, workFolder, registries);
  const args = [
    ...['--override-os', os, '--override-arch', architecture],
    ...(variant === undefined ? [] : ['--override-variant', variant]),
    ...['copy', '--quiet', ...access, absolute(source), `oci:${LAYOUT}:${TAG}`],
  ];
  // With the whole environment, which its credential helpers may need. What it copies is verified by digests.
  const exit = await runInstalled(SKOPEO, args, task.signal, { cwd: workFolder, env: process.env });
  if (exit.status !== 0) throw skopeoFailed(source, exit);
}

/** skopeo creates an empty layout if there is none, so check first. */
async function requireLayout(source: string): Promise<void> {
  if (source.startsWith('oci:')) await stat(join(partsOfLayout(source).path, 'index.json'));
}

/** Runs skopeo in the work folder. */
function absolute(source: string): string {
  if (!source.startsWith('oci:')) return source;
  const { path, tag } = partsOfLayout(source);
  return `oci:${resolve(path)}${tag}`;
}

function partsOfLayout(source: string): { path: string; tag: string } {
  const [, path = '', tag = ''] = /^oci:(.+?)(:[^/:]*)?$/.exec(source) ?? [];
  if (path !== '') return { path, tag };
  throw new RootfsError('REFERENCE_INVALID', `${source} names no folder: give oci:DIR or oci:DIR:TAG`, {
    path: source,
  });
}

// skopeo uses the same exit status for all of these.
const FAILURES: readonly (readonly [RegExp, RootfsErrorCode, string])[] = [
  [/toomanyrequests|too many requests/i, 'REGISTRY_BUSY', 'try again later, or log in'],
  [/policy\.json/, 'REGISTRY_FAILED', "make skopeo's signature policy readable"],
  [
    /docker-credential-\S+.*executable file not found/i,
    'REGISTRY_UNAUTHORIZED',
    'install the credential helper that the login file names',
  ],
  [/invalid reference format|invalid source name/i, 'REFERENCE_INVALID', 'give docker://HOST/NAME:TAG'],
  [
    /no image found in (manifest list|image index)/i,
    'ARTIFACT_INVALID',
    'give a platform that the image is there for',
  ],
  [
    /manifest unknown|name unknown|not found|no descriptor found/i,
    'REGISTRY_NOT_FOUND',
    'check its name and its tag',
  ],
  [
    /unauthorized|authentication required|access to the resource is denied|denied/i,
    'REGISTRY_UNAUTHORIZED',
    'log in with docker, podman or skopeo, or check the name',
  ],
];

function skopeoFailed(source: string, exit: Exit): RootfsError {
  const [, code, advice] = FAILURES.find(([words]) => words.test(exit.stderr)) ?? [
    undefined,
    'REGISTRY_FAILED' as const,
    'check the network and that the registry runs',
  ];
  return programFailed(code, SKOPEO.name, source, exit, `; ${advice}`);
}

async function readConfig(layout: string, source: string): Promise<ImageConfig> {
  try {
    const index = await readJson(join(layout, 'index.json'));
    const manifest = await readBlob(layout, index.manifests[0]);
    const { config = {}, os, architecture, variant } = await readBlob(layout, manifest.config);
    const { Entrypoint, Cmd, Env, User, WorkingDir, StopSignal, Labels } = config;
    const parsed = parseImageConfig({
      entrypoint: Entrypoint,
      cmd: Cmd,
      env: Env,
      user: User,
      workingDir: WorkingDir,
      stopSignal: StopSignal,
      labels: Labels,
      platform: platformName({ os, architecture, variant }),
    });
    return parsed ?? {};
  } catch (error) {
    throw new RootfsError('ARTIFACT_INVALID', `${source} is no container image: its config cannot be read`, {
      path: source,
      cause: error,
    });
  }
}

async function readBlob(layout: string, { digest }: { digest: string }) {
  const [, algorithm = '', hex = ''] = /^([a-z0-9]+):([0-9a-f]+)$/.exec(digest) ?? [];
  return readJson(join(layout, 'blobs', algorithm, hex));
}

// The OCI specification defines this shape. Anything that does not match it throws, and the caller catches that.
// biome-ignore lint/suspicious/noExplicitAny: checked as it is used
async function readJson(path: string): Promise<any> {
  return JSON.parse(await readFile(path, 'utf8'));
}

/** An index is queried for the platform. A single image is used as it is. */
function requirePlatform({ platform = '' }: ImageConfig, wanted: Platform, source: string): void {
  const [os, architecture] = platform.split('/');
  if (os === wanted.os && architecture === wanted.architecture) return;
  throw new RootfsError(
    'ARTIFACT_INVALID',
    `${source} is an image for ${platform || 'an unknown platform'}, not for ${platformName(wanted)}: ` +
      `choose another image, or give platform: '${platform}' if guests can run it`,
    { path: source },
  );
}
