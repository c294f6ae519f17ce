// From a staged image to a stack of the catalog: checked, with its config, placed, and its digest known.

import { constants, open, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { NativeFolder, OpenedSource } from '../addon/native.js';
import { TEMPLATE_ROOTFS_FILE } from '../catalog/catalog.js';
import { type ImageConfig, imageConfigPath, readImageConfig } from '../catalog/image-config.js';
import type { StackName } from '../catalog/stack-name.js';
import { hashUnchanged } from '../catalog/template.js';
import type { Templates } from '../catalog/templates.js';
import { requireE2fsck } from '../image/e2fsprogs.js';
import { flush } from '../system/flush.js';
import { writeOfMode } from '../system/make-files.js';
import type { Task } from '../system/task.js';
import { finishImage } from './check-image.js';
import { placeStack, requireStackFolder } from './place-stack.js';
import type { PublishedStack, PublishOptions } from './publish-options.js';

export interface StagedStack {
  readonly name: StackName;
  readonly templatePath: string;
  /** The folder that the image lies in. */
  readonly staged: string;
  /** Used in messages. */
  readonly source: string;
  /** Mode of the template. */
  readonly mode: number;
  readonly config: ImageConfig | undefined;
  /** A template of the same catalog, whose config goes with its bytes. */
  readonly copyOf?: string | undefined;
  /** Awaited before the stack appears. Rejects if an image with this digest must not. */
  readonly beforePlaced?: (sha256: string) => Promise<void>;
  readonly options: Pick<PublishOptions, 'replace' | 'expectedSha256' | 'onProgress'>;
}

/** Before long work that would be in vain. Rejects with `TEMPLATE_INVALID` or `E2FSCK_NOT_FOUND`, as that would. */
export async function requireFinishable(templatePath: string, e2fsckBin: string): Promise<void> {
  await requireStackFolder(dirname(templatePath));
  await requireE2fsck(e2fsckBin);
}

export async function finishStack(
  task: Task,
  handle: NativeFolder,
  templates: Templates,
  e2fsckBin: string,
  stack: StagedStack,
): Promise<Omit<PublishedStack, 'format'>> {
  const { name, templatePath, staged, source, mode, copyOf, options } = stack;
  const image = join(staged, TEMPLATE_ROOTFS_FILE);
  const sha256 = await finishImage(task, e2fsckBin, { image, source, mode }, options);
  task.checkAborted();
  await stack.beforePlaced?.(sha256);
  const config = stack.config ?? (copyOf === undefined ? undefined : await readImageConfig(copyOf, sha256));
  if (config !== undefined) await writeConfig(imageConfigPath(image, sha256), config);
  const { ino, size } = await stat(image, { bigint: true });
  const place = { staged, stackFolder: dirname(templatePath), name };
  const replaced = await closedLast(templatePath, async () => {
    const had = await placeStack(task, handle, place, options.replace ?? false);
    // The image is already published. If this check fails, the next one reports it.
    await remember(templates, templatePath, sha256, ino).catch(() => undefined);
    return had;
  });
  const published = { name, templatePath, sizeBytes: Number(size), sha256, replaced };
  return { ...published, ...(config === undefined ? {} : { image: config }) };
}

/**
 * Who closes the last descriptor of a replaced image frees its blocks, which takes 30 ms for one of 2 GiB. That is done
 * here on a thread, not by `work` on that of the event loop.
 */
async function closedLast<T>(image: string, work: () => Promise<T>): Promise<T> {
  const before = await open(image, constants.O_RDONLY | constants.O_NONBLOCK).catch(() => undefined);
  try {
    return await work();
  } finally {
    await before?.close();
  }
}

async function writeConfig(path: string, config: ImageConfig): Promise<void> {
  // A pull that was stopped just before its end has left it, read-only.
  await rm(path, { force: true });
  await writeOfMode(path, JSON.stringify(config), 0o444);
  await flush(path);
}

/**
 * Publishes the image, whose digest is known, so it need not be read again. From here on the caller's signal is
 * ignored.
 */
async function remember(
  templates: Templates,
  templatePath: string,
  sha256: string,
  inode: bigint,
): Promise<void> {
  await templates.look(templatePath, undefined, async (task: Task, path: string, opened: OpenedSource) =>
    // Another publisher may have already replaced it.
    opened.info.identity.inode === inode ? sha256 : hashUnchanged(task, path, opened),
  );
}
