// Publishes an image to the catalog. It is made and checked in staging, and appears only when complete.

import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { OpenedSource } from '../addon/native.js';
import { refuseOtherSpelling, TEMPLATE_ROOTFS_FILE } from '../catalog/catalog.js';
import type { ImageConfig } from '../catalog/image-config.js';
import type { StackName } from '../catalog/stack-name.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError } from '../system/errors.js';
import { flush } from '../system/flush.js';
import { type Folders, liesAmongOurs } from '../system/folders-overlap.js';
import { isMissing } from '../system/is-missing.js';
import { makeFolders } from '../system/make-folders.js';
import { Task } from '../system/task.js';
import type { RegistryCheck } from './fetch-image.js';
import { finishStack, requireFinishable } from './finish-stack.js';
import { missingSource } from './other-references.js';
import { stackExists } from './place-stack.js';
import type { PublishedStack, PublishOptions } from './publish-options.js';
import { stageImage } from './source-image.js';
import { INPUT_NAME, INPUT_PATH, isPath, STANDARD_INPUT } from './source-name.js';
import { isPrivate, templateMode } from './template-mode.js';

export interface PublishPrograms {
  readonly mke2fsBin: string;
  readonly e2fsckBin: string;
  readonly registries: RegistrySettings;
}

export interface PublishRequest {
  readonly name: StackName;
  readonly templatePath: string;
  readonly source: string;
  /** As the caller wrote it. Default: `source`. */
  readonly given?: string;
  /** A raw image that the caller has open: published even if its path names another file now. */
  readonly opened?: OpenedSource;
  /** For `opened`: how to start it. */
  readonly config?: ImageConfig | undefined;
  /** Whether others may not read the template. Default: if the source is an image in `ours` that they may not read. */
  readonly isPrivate?: boolean;
  /** Where images are VMs' data, and private if their mode says so. Elsewhere the mode may be what the umask left. */
  readonly ours?: Folders;
  /** For a container image in a registry. */
  readonly checkRegistry?: RegistryCheck;
  readonly options: PublishOptions;
}

/** `folder` is the catalog's own staging folder. */
export async function publishStack(
  folder: ManagedFolder,
  templates: Templates,
  programs: PublishPrograms,
  request: PublishRequest,
): Promise<PublishedStack> {
  const { name, source, templatePath, options } = request;
  const named = source === STANDARD_INPUT ? INPUT_NAME : source;
  const task = new Task(`publishing ${named} as ${name}`, options.signal);
  try {
    await refuseInVain(request, programs.e2fsckBin);
    const mode = templateMode(request.isPrivate ?? (await isPrivateOfOurs(request)));
    const isFirst = await isMissing(folder.path);
    return await folder.inWorkFolder('publish', async (workFolder, open) => {
      if (isFirst) await flush(dirname(folder.path));
      const staged = join(workFolder, 'stack');
      // Whoever can read the catalog can read the stack.
      await makeFolders(staged, 0o755);
      const { mke2fsBin, e2fsckBin, registries } = programs;
      const { format, config = request.config } = await stageImage({
        task,
        folder: open,
        source,
        opened: request.opened,
        workFolder,
        image: join(staged, TEMPLATE_ROOTFS_FILE),
        mke2fsBin,
        options,
        registries,
        checkRegistry: request.checkRegistry,
      });
      task.checkAborted();
      const stack = {
        name,
        templatePath,
        staged,
        source: named,
        mode,
        config,
        copyOf: isTemplateBeside(templatePath, source) ? source : undefined,
        options,
      };
      return { ...(await finishStack(task, open.handle, templates, e2fsckBin, stack)), format };
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

async function isPrivateOfOurs({ source, ours }: PublishRequest): Promise<boolean> {
  const path = source === STANDARD_INPUT ? INPUT_PATH : source;
  if (ours === undefined || !isPath(path)) return false;
  const found = await stat(path).catch(() => undefined); // reading it tells more
  return found?.isFile() === true && isPrivate(found.mode) && liesAmongOurs(path, ours);
}

/** Fails at once rather than after minutes of work, and creates nothing for a missing source. */
async function refuseInVain(request: PublishRequest, e2fsckBin: string): Promise<void> {
  const { source, given = source, opened, templatePath, options } = request;
  await refuseOtherSpelling(templatePath);
  if (!options.replace && !(await isMissingBelow(templatePath))) throw stackExists(templatePath);
  await requireFinishable(templatePath, e2fsckBin);
  if (opened !== undefined || !isPath(source)) return;
  await stat(source).catch((error: unknown) => {
    throw missingSource(given, error);
  });
}

function isTemplateBeside(templatePath: string, source: string): boolean {
  const templateDir = dirname(dirname(templatePath));
  return dirname(dirname(source)) === templateDir && basename(source) === TEMPLATE_ROOTFS_FILE;
}

/** Also true if its folder, or a parent folder, is. */
async function isMissingBelow(path: string): Promise<boolean> {
  return (await isMissing(dirname(path))) || isMissing(path);
}
