// Turns a container image (from a registry or an OCI layout) into a root filesystem folder. skopeo fetches it, umoci
// applies its layers.

import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../addon/native.js';
import { type ImageConfig, parseImageConfig } from '../catalog/image-config.js';
import { findProgram } from '../programs/find-program.js';
import { programFailed } from '../programs/program-failed.js';
import { type Exit, requireInstalled, runInstalled } from '../programs/run-program.js';
import { RootfsError } from '../system/errors.js';
import { withController } from '../system/on-abort.js';
import type { Task } from '../system/task.js';
import { prepareLayers } from './container-layers.js';
import { countLayers } from './count-layers.js';
import { type FetchRequest, fetchImage, LAYOUT, TAG } from './fetch-image.js';
import { type FetchedImage, readFetched } from './fetched-layout.js';
import { type Platform, parsePlatform, platformName } from './platform.js';
import type { PublishLimits } from './publish-options.js';
import { isOfTheTree } from './tree/attributes.js';
import type { ListedFolder } from './tree/listed-files.js';
import { hasAllUsers } from './tree/user-namespace.js';

// umoci goes on without the attributes, and names only the first.
const IGNORED = /ignoring ENOTSUP on setxattr \\?"([^"\\]+)/;
// ext4 reports ENOSPC if attributes do not fit beside the inode, however much space the disk has.
const TOO_LARGE = /xattr[^\n]*no space left/i;
const SOME_BLOCKS = 1024;
// XFS has links of at most 1023 bytes. Beyond Linux's own limit they were refused before.
const LINK_TOO_LONG = /link: symlink [^\n]*: file name too long/;

// git archive writes one, and builders that take a tar as a layer keep it. Engines leave it out.
const GLOBAL_HEADER = /unknown typeflag '(\\x67|g)'/;

// XFS lists an access list twice, the second time as trusted.SGI_ACL_FILE, to those who have CAP_SYS_ADMIN. umoci
// removes all that is listed of a file, and the second is gone with the first. It fails, and removes its tree.
const LISTED_TWICE = /lclearxattrs: remove xattr: no data available/;
const NOT_SYS_ADMIN = ['--inh-caps', '-sys_admin', '--bounding-set', '-sys_admin'];
// setpriv cannot do it, or a layer has trusted attributes.
const NEEDS_SYS_ADMIN = /^setpriv: |restore xattr metadata: .*operation not permitted/m;

const UMOCI = { name: 'umoci', package: 'umoci', notFound: 'PROGRAM_NOT_FOUND' } as const;
const SETPRIV = { name: 'setpriv', package: 'util-linux', notFound: 'PROGRAM_NOT_FOUND' } as const;

interface UnpackedImage {
  readonly tree: string;
  readonly config: ImageConfig;
  readonly listed: ListedFolder;
}

interface ContainerRequest extends Omit<FetchRequest, 'platform'> {
  readonly platform: string | undefined;
  readonly limits: Required<PublishLimits>;
}

/**
 * Rejects with `EPERM` unless run as root, `PROGRAM_NOT_FOUND`, `REFERENCE_INVALID`, `REGISTRY_NOT_FOUND`,
 * `REGISTRY_UNAUTHORIZED`, `REGISTRY_BUSY`, `REGISTRY_FAILED`, `DIGEST_MISMATCH`, `SOURCE_TOO_LARGE`, or
 * `ARTIFACT_INVALID` (damaged, no container image, or for another platform).
 */
export async function unpackContainerImage(task: Task, request: ContainerRequest): Promise<UnpackedImage> {
  const { source, workFolder, limits } = request;
  await requireRoot(source);
  const wanted = parsePlatform(request.platform);
  await requireInstalled(UMOCI);
  await fetchImage(task, { ...request, platform: wanted });
  const layout = join(workFolder, LAYOUT);
  const image = await readFetched(layout, source);
  const config = configOf(image);
  requirePlatform(image, wanted, source);
  const layers = await prepareLayers(task, image, { source, layout, workFolder, limits });
  // The catalog's folder may give an access list to all that is made in it. It is not the image's, and umoci fails on
  // it.
  await native().removeDefaultAcl(workFolder);
  const count = (each: Task) => countLayers(each, source, layers, limits);
  const listed = await unpackWithin(task, source, workFolder, count);
  return { tree: join(workFolder, 'tree'), config, listed };
}

/** `count` ends umoci if the layers hold too much. What it finds wrong with them explains more than umoci does. */
async function unpackWithin(
  task: Task,
  source: string,
  workFolder: string,
  count: (task: Task) => Promise<ListedFolder>,
): Promise<ListedFolder> {
  return withController(task.signal, async (own) => {
    const counting = count(task).catch((error: unknown) => {
      own.abort(error);
      throw error;
    });
    const unpacking = unpack(task.endedBy(own.signal), source, workFolder);
    for (const outcome of await Promise.allSettled([counting, unpacking]))
      if (outcome.status === 'rejected') throw outcome.reason;
    return counting;
  });
}

async function unpack(task: Task, source: string, workFolder: string): Promise<void> {
  const exit = await runUmoci(task, source, workFolder);
  const attribute = IGNORED.exec(exit.stderr)?.[1];
  if (attribute !== undefined && isOfTheTree(attribute)) {
    throw new RootfsError(
      'ENOTSUP',
      `${source} has the attribute ${attribute}, which the file system of the catalog cannot keep: put templateDir ` +
        'on XFS, btrfs or ext4',
      { path: workFolder },
    );
  }
  if (exit.status === 0) return;
  if (GLOBAL_HEADER.test(exit.stderr)) {
    throw new RootfsError(
      'ARTIFACT_INVALID',
      `${source} has a layer with a pax header for all its files, as git archive writes it, which umoci cannot ` +
        'unpack: publish what docker export "$(docker create IMAGE)" gives',
      { path: source },
    );
  }
  if (LINK_TOO_LONG.test(exit.stderr)) {
    throw new RootfsError(
      'ENOTSUP',
      `${source} has a symbolic link that is too long for the file system of the catalog (XFS keeps 1023 bytes): ` +
        'put templateDir on btrfs or ext4',
      { path: workFolder },
    );
  }
  if (TOO_LARGE.test(exit.stderr) && (await statfs(workFolder)).bavail >= SOME_BLOCKS) {
    throw new RootfsError(
      'IMAGE_INVALID',
      `a file in ${source} has extended attributes that do not fit into ext4, which has one block for all of a ` +
        "file's: remove what is not needed from the image",
      { path: source },
    );
  }
  throw programFailed('ARTIFACT_INVALID', UMOCI.name, source, exit);
}

async function runUmoci({ signal }: Task, source: string, workFolder: string): Promise<Exit> {
  const args = ['raw', 'unpack', '--image', `${LAYOUT}:${TAG}`, 'tree'];
  const options = { cwd: workFolder, usualUmask: true, diesWithUs: true };
  const exit = await runInstalled(UMOCI, args, signal, options);
  if (!LISTED_TWICE.test(exit.stderr)) return exit;
  const umoci = (await findProgram(UMOCI.name)) ?? UMOCI.name;
  const again = await runInstalled(SETPRIV, [...NOT_SYS_ADMIN, umoci, ...args], signal, options);
  if (!NEEDS_SYS_ADMIN.test(again.stderr)) return again;
  throw new RootfsError(
    'ENOTSUP',
    `${source} has access lists, which umoci cannot unpack on XFS beside trusted attributes, or without setpriv of ` +
      'util-linux: put templateDir on btrfs or ext4',
    { path: workFolder },
  );
}

/** Root of a user namespace makes no devices, and umoci then makes empty files instead. */
async function requireRoot(source: string): Promise<void> {
  const isRoot = process.geteuid?.() === 0;
  if (isRoot && (await hasAllUsers())) return;
  const whose = isRoot ? 'root of the host, not of a user namespace' : 'root';
  throw new RootfsError(
    'EPERM',
    `unpacking ${source} needs ${whose}, to keep owners and devices: run as root${isRoot ? ' of the host' : ''}, ` +
      'or publish an image',
    { path: source },
  );
}

function configOf({ config: { config, os, architecture, variant } }: FetchedImage): ImageConfig {
  const { Entrypoint, Cmd, Env, User, WorkingDir, StopSignal, Labels } = config ?? {};
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
}

/** An index is queried for the platform. A single image is used as it is, also if it does not tell its platform. */
function requirePlatform(
  { config: { os, architecture, variant } }: FetchedImage,
  wanted: Platform,
  source: string,
): void {
  const fits = (found: unknown, asked: string) => !found || found === asked;
  if (fits(os, wanted.os) && fits(architecture, wanted.architecture)) return;
  const platform = platformName({ os, architecture, variant });
  throw new RootfsError(
    'ARTIFACT_INVALID',
    `${source} is an image for ${platform}, not for ${platformName(wanted)}: ` +
      `choose another image, or give platform: '${platform}' if guests can run it`,
    { path: source },
  );
}
