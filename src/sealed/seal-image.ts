// Making sealed images: in staging, published with their record by one rename, so none is ever wrong or half there.

import { chmod } from 'node:fs/promises';
import {
  type NativeSource,
  type NativeStagedSlot,
  native,
  type OpenedSource,
  RUNG,
} from '../addon/native.js';
import { stateOf } from '../catalog/template-record.js';
import { type Template, templateChangedError } from '../catalog/templates.js';
import type { OpenFolder } from '../folder/managed-folder.js';
import { checkFilesystemClean, type GrowPrograms, growImage } from '../image/grow.js';
import { hashSource } from '../image/hash.js';
import { copyImage } from '../image/staged-copy.js';
import { failedWith } from '../system/errors.js';
import type { Task } from '../system/task.js';
import type { CloneSource } from './clone-source.js';
import { keyOf, RECORD_FILE, RECORD_VERSION, type SealRecord } from './seal-record.js';

/** A template with no more extents than this is sealed by reflink, which costs no space. */
const FEW_EXTENTS = 4;

/**
 * A sealed copy of an open template, published with its record. Gives the digest of its bytes. Rejects with `TEMPLATE_CHANGED` if that is not
 * the `known` one.
 */
export async function sealTemplate(
  task: Task,
  folder: OpenFolder,
  path: string,
  { source, info }: OpenedSource,
  known: string | undefined,
): Promise<string> {
  const { identity } = info;
  const scattered = ((await extentCount(source)) ?? 0) > FEW_EXTENTS;
  const outcome = await native().stageImage(folder.handle, source, {
    sidecars: [],
    expected: identity,
    rungs: scattered ? RUNG.copy : RUNG.reflink | RUNG.copy,
    packed: true,
    mode: 0o444,
    durable: true,
  });
  try {
    // The digest is that of the bytes in the sealed image, whatever happens to the template.
    const sha256 =
      outcome.status === 'copy-needed'
        ? await copyImage(task, outcome.staged)
        : (known ?? (await hashStaged(task, outcome.imagePath, identity.sizeBytes)));
    if (sha256 === undefined || (known !== undefined && sha256 !== known))
      throw templateChangedError(path, 'changed while it was sealed');
    const record = {
      templatePath: path,
      template: stateOf(identity),
      sha256,
      sizeBytes: identity.sizeBytes,
    };
    const published = await publish(outcome.staged, outcome.imagePath, record);
    if (published === 'source-changed') throw templateChangedError(path, 'changed while it was sealed');
    return sha256;
  } finally {
    await native().discardSlot(outcome.staged);
  }
}

/** A grown variant of a sealed image, checked, in few extents, and published. */
export async function sealGrown(
  task: Task,
  folder: OpenFolder,
  base: CloneSource,
  template: Template,
  sizeBytes: number,
  programs: GrowPrograms,
): Promise<void> {
  const grown = await native().stageImage(folder.handle, base.source, {
    sidecars: [],
    expected: base.identity,
    rungs: RUNG.reflink | RUNG.copy,
    mode: 0o600,
    durable: true,
  });
  let staged = grown.staged;
  try {
    let { imagePath } = grown;
    if (grown.status === 'copy-needed') await copyImage(task, staged);
    await growImage(imagePath, sizeBytes, programs, task.signal);
    await checkFilesystemClean(imagePath, programs.e2fsckBin, task.signal);
    const packed = await repack(task, folder, imagePath);
    if (packed !== undefined) {
      await native().discardSlot(staged);
      ({ staged, imagePath } = packed);
    }
    await chmod(imagePath, 0o444);
    const { path, identity, sha256 } = template;
    await publish(staged, imagePath, {
      templatePath: path,
      template: stateOf(identity),
      sha256,
      sizeBytes,
    });
  } finally {
    await native().discardSlot(staged);
  }
}

async function publish(
  staged: NativeStagedSlot,
  imagePath: string,
  record: Pick<SealRecord, 'templatePath' | 'template' | 'sha256' | 'sizeBytes'>,
): Promise<'created' | 'exists' | 'source-changed'> {
  const { source, info } = await native().openSource(imagePath);
  try {
    const image = { ...stateOf(info.identity), ctimeNs: `${info.identity.ctimeNs}` };
    const extents = await extentCount(source);
    const whole: SealRecord = {
      version: RECORD_VERSION,
      ...record,
      image,
      ...(extents === undefined ? {} : { extents }),
    };
    const key = keyOf(record.sha256, record.sizeBytes);
    return await native().publishSlot(staged, 'sealed', key, record.sizeBytes, [
      RECORD_FILE,
      `${JSON.stringify(whole)}\n`,
    ]);
  } finally {
    native().dispose(source);
  }
}

async function extentCount(source: NativeSource): Promise<number | undefined> {
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (failedWith(error, 'ENOTSUP') || failedWith(error, 'ENOTTY')) return undefined;
    throw error;
  }
}

async function hashStaged(task: Task, path: string, sizeBytes: number): Promise<string> {
  const { source } = await native().openSource(path);
  try {
    return await hashSource(task, source, sizeBytes);
  } finally {
    native().dispose(source);
  }
}

/** A copy in fewer extents of an image that growing has scattered; undefined if there is nothing to win. */
async function repack(
  task: Task,
  folder: OpenFolder,
  path: string,
): Promise<{ staged: NativeStagedSlot; imagePath: string } | undefined> {
  const { source, info } = await native().openSource(path);
  try {
    const extents = await extentCount(source);
    if (extents === undefined || extents <= FEW_EXTENTS) return undefined;
    const { staged, imagePath } = await native().stageImage(folder.handle, source, {
      sidecars: [],
      expected: info.identity,
      rungs: RUNG.copy,
      packed: true,
      durable: true,
    });
    let kept = false;
    try {
      await copyImage(task, staged);
      const packed = await native().openSource(imagePath);
      kept = ((await extentCount(packed.source)) ?? extents) < extents;
      native().dispose(packed.source);
      return kept ? { staged, imagePath } : undefined;
    } finally {
      if (!kept) await native().discardSlot(staged);
    }
  } finally {
    native().dispose(source);
  }
}
