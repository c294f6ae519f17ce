// Makes sealed images. An image is built in staging and published with its record by one rename, so none is ever wrong
// or half-written. The image reaches the disk before its record is written, and a record is valid only for the image
// state that it names. So nothing else is flushed: what a power cut removes is made again. A reflink needs no flush,
// because the filesystem writes its changes in order.

import { chmod } from 'node:fs/promises';
import { type NativeStagedSlot, native, type OpenedSource, RUNG, type Staged } from '../addon/native.js';
import { type Template, tellsEveryChange, templateChangedError } from '../catalog/template.js';
import { recordTemplate, stateOf, type TemplateRecord } from '../catalog/template-record.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { checkFilesystemClean } from '../image/e2fsprogs.js';
import { extentCount, measureFile } from '../image/extents.js';
import { adviceAfterGrowing, type GrowPrograms, growImage } from '../image/grow.js';
import { hashSource } from '../image/hash.js';
import { copyImage } from '../image/staged-copy.js';
import { inTurn } from '../system/long-work.js';
import type { Task } from '../system/task.js';
import type { CloneSource } from './clone-source.js';
import { keyOf, type PackState, RECORD_FILE, RECORD_VERSION, type SealRecord } from './seal-record.js';

const SEALED_MODE = 0o444;

/** A record that was published. Undefined if another process published its image first. */
export type Sealed = { readonly sha256: string; readonly record: SealRecord | undefined };

/**
 * Seals an open template and publishes the image with its record. Uses a reflink, or a copy where that is not possible.
 * Returns the digest of its bytes. Rejects with `TEMPLATE_CHANGED` if that differs from `known`.
 */
export async function sealTemplate(
  task: Task,
  folder: OpenFolder,
  path: string,
  opened: OpenedSource,
  known: string | undefined,
): Promise<Sealed> {
  const { source, info } = opened;
  const { identity } = info;
  const outcome = await inTurn(task, () => stage(folder, { source, identity, sealed: false }));
  try {
    const sha256 =
      outcome.status === 'copy-needed'
        ? await copyImage(task, outcome.staged)
        : (known ?? (await hashReflink(task, opened, outcome.imagePath)));
    if (sha256 === undefined || (known !== undefined && sha256 !== known))
      throw templateChangedError(path, 'changed while it was sealed');
    const { sizeBytes } = identity;
    const record = { ...(await recordTemplate(path, identity)), sha256, sizeBytes };
    const isCopy = outcome.strategy === 'copy';
    const published = await publish(task, outcome, record, { flushed: isCopy, sharesAll: !isCopy });
    if (published === 'source-changed') throw templateChangedError(path, 'changed while it was sealed');
    return { sha256, record: published === 'exists' ? undefined : published };
  } finally {
    await native().discardSlot(outcome.staged);
  }
}

interface GrownRequest {
  /** Opens the sealed image of the template's own size. */
  readonly openSealed: () => Promise<CloneSource | undefined>;
  readonly template: Template;
  /** The size to grow to. */
  readonly sizeBytes: number;
  readonly programs: GrowPrograms;
}

/**
 * Makes, checks and publishes a grown variant of a sealed image. Undefined if another process has published it, or has
 * removed the sealed image.
 */
export async function sealGrown(
  task: Task,
  folder: OpenFolder,
  { openSealed, template, sizeBytes, programs }: GrownRequest,
): Promise<SealRecord | undefined> {
  const outcome = await inTurn(task, async () => {
    // Asked for now: many images at once close each other while they wait.
    const sealed = await openSealed();
    return sealed && stage(folder, sealed, { mode: 0o600, unhashed: true });
  });
  if (outcome === undefined) return undefined;
  const { staged, imagePath } = outcome;
  try {
    if (outcome.status === 'copy-needed') await copyImage(task, staged);
    const { path, identity, sha256 } = template;
    await growImage(imagePath, sizeBytes, programs, task.signal, path);
    const check = { name: path, advice: adviceAfterGrowing(path, sizeBytes), sizeBytes };
    await checkFilesystemClean(imagePath, programs.e2fsckBin, task.signal, check);
    await chmod(imagePath, SEALED_MODE);
    const record = { ...(await recordTemplate(path, identity)), sha256, sizeBytes };
    const published = await publish(task, outcome, record, { flushed: true });
    return typeof published === 'string' ? undefined : published;
  } finally {
    await native().discardSlot(staged);
  }
}

/** Reflinks if possible. Otherwise starts a copy, which packs and hashes on the way. In the task's turn. */
function stage(
  folder: OpenFolder,
  { source, identity }: CloneSource,
  { mode = SEALED_MODE, unhashed = false } = {},
): Promise<Staged> {
  return native().stageImage(folder.handle, source, {
    sidecars: [],
    expected: identity,
    rungs: RUNG.reflink | RUNG.copy,
    packed: true,
    unhashed,
    mode,
    durable: false,
  });
}

/**
 * Publishes a staged image, and returns its record. `flushed` flushes it first, because its data may still be in
 * memory. `sharesAll`: it is a reflink, so it has no blocks of its own.
 */
export async function publish(
  task: Task,
  { staged, imagePath }: { readonly staged: NativeStagedSlot; readonly imagePath: string },
  record: TemplateRecord & Pick<SealRecord, 'sha256' | 'sizeBytes'>,
  { flushed, sharesAll = false }: { flushed: boolean; sharesAll?: boolean },
  packing: PackState = 'plain',
): Promise<SealRecord | 'exists' | 'source-changed'> {
  const { source, info } = await native().openSource(imagePath);
  try {
    if (flushed) await inTurn(task, () => native().flushSource(source));
    const image = { ...stateOf(info.identity), ctimeNs: `${info.identity.ctimeNs}` };
    const extents = await inTurn(task, () => extentCount(source));
    const whole: SealRecord = {
      version: RECORD_VERSION,
      ...record,
      image,
      ...(extents === undefined ? {} : { extents }),
      ownBytes: sharesAll ? 0 : ((await measureFile(imagePath))?.aloneBytes ?? 0),
    };
    const key = keyOf(record.sha256, record.sizeBytes, packing);
    const sidecars = [RECORD_FILE, `${JSON.stringify(whole)}\n`];
    const published = await native().publishSlot(staged, 'sealed', key, record.sizeBytes, sidecars);
    return published === 'created' ? whole : published;
  } finally {
    native().dispose(source);
  }
}

/**
 * The digest of the bytes in a sealed image that is a reflink of this template. The pages of the template are often in
 * memory, those of a new reflink never are. If the template changes while it is read, its image is not published.
 */
async function hashReflink(task: Task, template: OpenedSource, imagePath: string): Promise<string> {
  const { sizeBytes } = template.info.identity;
  if (tellsEveryChange(template.filesystem)) return hashSource(task, template.source, sizeBytes);
  const { source } = await native().openSource(imagePath);
  try {
    return await hashSource(task, source, sizeBytes);
  } finally {
    native().dispose(source);
  }
}
