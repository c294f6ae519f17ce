// Pushes a stack to a registry. Its tag is moved last, so readers find the old artifact or the whole new one.

import { open } from 'node:fs/promises';
import { native } from '../addon/native.js';
import type { StackInfo } from '../catalog/catalog.js';
import { unchanged } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { RegistrySettings } from '../system/config.js';
import { asRootfsError, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { ANNOTATION, digestOf, EMPTY_CONFIG, formatArtifact, parseArtifact, STACK_TYPE } from './artifact.js';
import { fetchList, packsOf } from './assemble-image.js';
import { BlobReader } from './blob-reader.js';
import type { ChunkList } from './chunk-list.js';
import { fetchManifest } from './fetch-manifest.js';
import type { KnownChunks } from './known-chunks.js';
import { type BasePacks, type PushedImage, packKey, pushImage, sendBlob } from './push-image.js';
import { formatReference, type Reference } from './reference.js';
import type { RegistryClient } from './registry-client.js';
import { Pace } from './retry.js';
import { concurrencyOf, withRegistry } from './transfer.js';
import type { PushedStack, TransferOptions, TransferProgress } from './transfer-options.js';

export interface PushRequest {
  readonly stack: StackInfo;
  readonly reference: Reference;
  readonly base: Reference | undefined;
  readonly level: number;
  readonly options: TransferOptions;
}

export interface PushPlace {
  readonly folder: ManagedFolder;
  readonly known: KnownChunks;
  readonly registries: RegistrySettings;
}

export async function pushStack(task: Task, place: PushPlace, request: PushRequest): Promise<PushedStack> {
  const { stack, reference } = request;
  try {
    return await withRegistry(place.registries, reference, 'pull,push', async (sources) => {
      const client = sources.at(-1) as RegistryClient;
      const pushed = await place.folder.inWorkFolder('push', (workFolder) =>
        pushTemplate(task, place, request, client, workFolder),
      );
      const emptySent = await sendBlob(task, client, EMPTY_CONFIG);
      const manifest = formatArtifact(STACK_TYPE, pushed.layers, annotationsOf(stack));
      await client.putManifest(task, reference.tag as string, manifest);
      return {
        reference: formatReference(reference),
        digest: digestOf(manifest.bytes),
        sha256: stack.sha256,
        sizeBytes: stack.sizeBytes,
        uploadedBytes: pushed.uploadedBytes + (emptySent ? EMPTY_CONFIG.length : 0),
        reusedBytes: pushed.reusedBytes + (emptySent ? 0 : EMPTY_CONFIG.length),
      };
    });
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

async function pushTemplate(
  task: Task,
  { known }: PushPlace,
  { stack, base, level, options }: PushRequest,
  client: RegistryClient,
  workFolder: string,
): Promise<PushedImage> {
  const { templatePath, sha256, sizeBytes } = stack;
  const pace = new Pace(concurrencyOf(options));
  client.onBusy = pace.slowDown;
  const progress = { bytesDone: 0, reusedBytes: 0 };
  const report = (step: TransferProgress['step'], bytesDone: number) =>
    options.onProgress?.({ step, bytesDone, bytesTotal: sizeBytes, reusedBytes: progress.reusedBytes });
  const opened = await native().openSource(templatePath);
  try {
    return await unchanged(templatePath, opened, async () => {
      const file = await open(templatePath, 'r');
      try {
        await requireSame(file, opened.info.identity.inode, templatePath);
        const list = await known.listOf(task, templatePath, { sha256, sizeBytes }, (done) =>
          report('cut', done),
        );
        return await pushImage(task, {
          client,
          pace,
          file,
          list,
          level,
          workFolder,
          base: base && (await basePacks(task, client, base)),
          onPack: (bytes, wasSent) => {
            progress.bytesDone += bytes;
            if (!wasSent) progress.reusedBytes += bytes;
            report('upload', progress.bytesDone);
          },
        });
      } finally {
        await file.close();
      }
    });
  } finally {
    native().dispose(opened.source);
  }
}

async function requireSame(
  file: { stat(options: { bigint: true }): Promise<{ ino: bigint }> },
  inode: bigint,
  path: string,
): Promise<void> {
  if ((await file.stat({ bigint: true })).ino === inode) return;
  throw new RootfsError(
    'TEMPLATE_CHANGED',
    `template ${path} was replaced while it was opened: push it again`,
    {
      path,
    },
  );
}

async function basePacks(task: Task, client: RegistryClient, base: Reference): Promise<BasePacks> {
  const source = client.of(base.repository);
  const artifact = parseArtifact(await fetchManifest(task, [source], base, undefined));
  const list: ChunkList = await fetchList(task, artifact, {
    reader: new BlobReader([source]),
    readOptions: {},
  });
  const layers = packsOf(artifact);
  const packs = list.packs.map(({ first, end }, i) => {
    const frameBytes = Array.from({ length: end - first }, (_, k) => list.frameBytes(first + k));
    return [packKey(list, first, end), { layer: layers[i] as (typeof layers)[number], frameBytes }] as const;
  });
  return { repository: base.repository, packs: new Map(packs) };
}

function annotationsOf({ sha256, sizeBytes, image }: StackInfo): Record<string, string> {
  return {
    [ANNOTATION.sha256]: sha256,
    [ANNOTATION.sizeBytes]: `${sizeBytes}`,
    ...(image === undefined ? {} : { [ANNOTATION.image]: JSON.stringify(image) }),
  };
}
