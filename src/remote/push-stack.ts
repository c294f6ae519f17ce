// Pushes a stack to a registry. Its tag is moved last, so readers find the old artifact or the whole new one.

import { native, type OpenedSource } from '../addon/native.js';
import type { StackInfo } from '../catalog/catalog.js';
import { sameWhileRead, templateChangedError, unchanged } from '../catalog/template.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { isPrivate } from '../publish/template-mode.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError, hasCode, isGone, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, STACK_TYPE } from './artifact.js';
import { packsToReuse } from './base-packs.js';
import type { KnownChunks } from './known-chunks.js';
import { openSame } from './open-same.js';
import { Pace } from './pace.js';
import { packEnds } from './packs.js';
import { type PushedImage, pushImage } from './push-image.js';
import { PushProgress } from './push-progress.js';
import { putArtifact } from './put-artifact.js';
import type { Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import type { PushedStack, PushOptions } from './transfer-options.js';
import { withRegistry } from './with-registry.js';

interface PushRequest {
  readonly stack: StackInfo;
  readonly reference: Reference;
  readonly base: Reference | undefined;
  readonly level: number;
  readonly options: PushOptions;
}

interface PushContext {
  readonly folder: ManagedFolder;
  readonly known: KnownChunks;
  readonly registries: RegistrySettings;
}

export async function pushStack(
  task: Task,
  context: PushContext,
  request: PushRequest,
): Promise<PushedStack> {
  const { stack, reference } = request;
  const { sha256, sizeBytes } = stack;
  try {
    return await withRegistry(context.registries, reference, 'pull,push', async (clients) => {
      const client = clients.at(-1) as RegistryClient;
      const { mode, ...pushed } = await context.folder.inWorkFolder('push', (workFolder) =>
        pushTemplate(task, context, request, client, workFolder),
      );
      const annotations = annotationsOf(stack, isPrivate(mode));
      const content = { artifactType: STACK_TYPE, sha256, sizeBytes, annotations };
      return await putArtifact(task, client, reference, { ...pushed, ...content });
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

async function pushTemplate(
  task: Task,
  { known }: PushContext,
  request: PushRequest,
  client: RegistryClient,
  workFolder: string,
): Promise<PushedImage & { readonly mode: number }> {
  const { stack, level, options } = request;
  const { templatePath, sha256, sizeBytes } = stack;
  const pace = new Pace(options.concurrency);
  client.onBusy = pace.slowDown;
  const progress = new PushProgress(sizeBytes, options.onProgress);
  const opened = await native()
    .openSource(templatePath)
    .catch((error: unknown) => {
      throw isGone(error) ? replacedError(templatePath) : error;
    });
  try {
    return await unchanged(templatePath, opened, async () => {
      const file = await openSame(templatePath, opened.info.identity, () => replacedError(templatePath));
      try {
        const { list, sha256: found } = await known.listOf(task, file, { sha256, sizeBytes }, (done) =>
          progress.report('cut', done),
        );
        if (found !== sha256) throw await otherBytesError(templatePath, opened);
        const { mode } = await file.stat();
        const pushed = await pushImage(task, {
          client,
          pace,
          file,
          list,
          ends: await packEnds(list),
          annotations: {},
          level,
          workFolder,
          base: await packsToReuse(task, client, request, sha256),
          onPack: (bytes, wasSent) => progress.packDone(bytes, wasSent),
        }).catch(async (error: unknown) => {
          throw hasCode(error, 'SOURCE_CHANGED') ? await otherBytesError(templatePath, opened) : error;
        });
        return { ...pushed, mode };
      } finally {
        await file.close();
      }
    });
  } finally {
    native().dispose(opened.source);
  }
}

function replacedError(path: string): RootfsError {
  const message = `template ${path} was replaced or removed while it was opened: push it again`;
  return new RootfsError('TEMPLATE_CHANGED', message, { path });
}

/** For a template that has not the bytes of its digest. If nobody wrote to it, the disk has changed them. */
async function otherBytesError(
  path: string,
  { source, info, filesystem }: OpenedSource,
): Promise<RootfsError> {
  const now = await native().checkSource(source);
  if (now.openForWriting || !sameWhileRead(info.identity, now.info.identity, filesystem))
    return templateChangedError(path, 'changed while it was read');
  return new RootfsError(
    'TEMPLATE_CORRUPT',
    `template ${path} has other bytes than when its digest was computed, though nobody wrote to it: check its ` +
      'disk, and publish it again with replace: true',
    { path },
  );
}

function annotationsOf({ image }: StackInfo, keepsPrivate: boolean): Record<string, string> {
  return {
    ...(image === undefined ? {} : { [ANNOTATION.image]: JSON.stringify(image) }),
    ...(keepsPrivate ? { [ANNOTATION.private]: 'true' } : {}),
  };
}
