// What a container image says about how to start it: kept beside the template that was made of it.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { namesIn } from '../folder/names-in.js';
import { readOwnFile } from '../folder/state-files.js';
import { asRootfsError } from '../system/errors.js';

/** How the author of a container image wants it to be started. The names are those of the OCI image specification. */
export interface ImageConfig {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  /** `NAME=value` each. */
  readonly env?: readonly string[];
  /** `user`, `uid`, `user:group` or `uid:gid`. */
  readonly user?: string;
  readonly workingDir?: string;
  readonly stopSignal?: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** `os/architecture`, or `os/architecture/variant`. */
  readonly platform?: string;
}

// Far above what any image needs: registries limit manifests to 4 MiB as well.
const BYTES_LIMIT = 4 * 1024 * 1024;

const NAME = /^rootfs\.ext4\.[0-9a-f]{64}\.json$/;

/**
 * The file's name holds the digest of the image that the config belongs to. So the old file stays true until the new
 * image has taken the place of the old one, and a config never meets an image that somebody else put there.
 */
export function imageConfigPath(templatePath: string, sha256: string): string {
  return `${templatePath}.${sha256}.json`;
}

/** Undefined for an image that was not made of a container image. */
export async function readImageConfig(
  templatePath: string,
  sha256: string,
): Promise<ImageConfig | undefined> {
  const path = imageConfigPath(templatePath, sha256);
  const text = await readOwnFile(path, BYTES_LIMIT).catch((error) => {
    throw asRootfsError(`reading ${path}`, error);
  });
  try {
    return text === undefined ? undefined : parseImageConfig(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Takes what has the right type, and leaves out the rest. */
export function parseImageConfig(value: unknown): ImageConfig | undefined {
  if (!isRecord(value)) return undefined;
  const config: Record<string, unknown> = {};
  for (const key of ['entrypoint', 'cmd', 'env']) if (isTexts(value[key])) config[key] = value[key];
  for (const key of ['user', 'workingDir', 'stopSignal', 'platform']) {
    if (typeof value[key] === 'string' && value[key] !== '') config[key] = value[key];
  }
  const { labels } = value;
  if (isRecord(labels) && isTexts(Object.values(labels))) config.labels = labels;
  return config as ImageConfig;
}

/** Removes all configs in a folder but those with these names. */
export async function removeImageConfigs(folder: string, keep: readonly string[]): Promise<void> {
  for (const name of await imageConfigsIn(folder))
    if (!keep.includes(name)) await rm(join(folder, name), { force: true });
}

/** The names of all configs in a folder. None if there is no folder. */
export function imageConfigsIn(folder: string): Promise<string[]> {
  return namesIn(folder, (name) => NAME.test(name));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((each) => typeof each === 'string');
}
