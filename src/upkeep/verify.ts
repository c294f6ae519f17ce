// Reads everything again to verify that templates, sealed images and clones still match their digests.

import { stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { type Identity, sameContents } from '../addon/identity.js';
import { inspectSlot, type NativeSource, native } from '../addon/native.js';
import { type Catalog, LOST_AND_FOUND } from '../catalog/catalog.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import { checkFilesystemClean, DamageFound } from '../image/e2fsprogs.js';
import { hashSource } from '../image/hash.js';
import { isSealedFile, keyOf, partsOf, readRecord, type SealRecord } from '../sealed/seal-record.js';
import { UNKNOWN_BYTES_LIMIT } from '../slot/slot-image.js';
import { slotNames } from '../slot/slot-names.js';
import { imageInUse } from '../slot/slot-use.js';
import { CLONE_ROOTFS_FILE, parseStamp } from '../slot/stamps.js';
import { asRootfsError, failedWith, hasCode } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import type { Progress } from '../system/long-work.js';
import { Pause } from '../system/pause.js';
import { SEALED_FOLDER } from '../system/state-folder.js';
import { Task } from '../system/task.js';

export interface VerifyOptions {
  /**
   * Also read clones that share no blocks with another file, were not grown and are not in use. A clone that its guest
   * wrote to differs from its stamp, which is expected. A clone of another length than its template is named, not read;
   * where the template's is not known any more, one of more than 1 TiB.
   */
  readonly clones?: boolean;
  readonly signal?: AbortSignal;
  /** Called between slices of the work, and once at the end. */
  readonly onProgress?: (progress: Progress) => void;
}

export interface Difference {
  readonly kind: 'template' | 'sealed image' | 'clone';
  readonly path: string;
  /** The digest. For a grown sealed image, what it should be. */
  readonly expected: string;
  readonly found: string;
}

export interface VerifyReport {
  /** How many of each kind were read. */
  readonly templates: number;
  readonly sealedImages: number;
  readonly clones: number;
  /** Paths of templates that were not read: the digest of the file as it is now is not known, or it is a new one. */
  readonly templatesNotRead: readonly string[];
  readonly differences: readonly Difference[];
}

interface Check {
  readonly kind: Difference['kind'];
  readonly path: string;
  readonly sizeBytes: number;
  readonly expected: string;
  /** Of a template. */
  readonly identity?: Identity;
  /** Of a sealed image. */
  readonly record?: SealRecord;
  /** Known without reading the file. */
  readonly found?: string;
}

/** The digest of a grown image is not known, so it is compared with what it must contain. */
const CLEAN = 'not written to since it was sealed, and a clean filesystem';

/** Found of a clone that a VM opened after all, and of what was removed or replaced since it was listed. */
const NOT_READ = 'not read';

export async function verify(
  folder: ManagedFolder,
  catalog: Catalog,
  e2fsckBin: string,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const { onProgress } = options;
  const task = new Task(`verifying ${folder.path}`, options.signal);
  const failures = new Failures(task);
  try {
    const { checks, bytesOf, templatesNotRead } = await templateChecks(task, catalog);
    for await (const image of sealedImages(task, folder, failures)) {
      checks.push(image);
      // Of a template that is gone, or has another digest by now.
      bytesOf.set(image.record.sha256, image.record.template.sizeBytes);
    }
    if (options.clones) for await (const clone of clones(task, folder, bytesOf, failures)) checks.push(clone);
    const { read, replaced, differences } = await readAll(task, checks, e2fsckBin, failures, onProgress);
    const report = {
      templates: read.template,
      sealedImages: read['sealed image'],
      clones: read.clone,
      templatesNotRead: [...templatesNotRead, ...replaced],
      differences,
    };
    failures.throwIfAny(report);
    return report;
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

/** How many of each kind could be read, which of them differ, and which templates were replaced meanwhile. */
async function readAll(
  task: Task,
  checks: readonly Check[],
  e2fsckBin: string,
  failures: Failures,
  onProgress: VerifyOptions['onProgress'],
) {
  const bytesTotal = checks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const differences: Difference[] = [];
  const replaced: string[] = [];
  const read = { template: 0, 'sealed image': 0, clone: 0 };
  const pause = new Pause(() => task.checkAborted());
  let before = 0;
  for (const check of checks) {
    if (pause.isDue) await pause.take();
    task.checkAborted();
    const progress = ({ bytesDone }: Progress) =>
      onProgress?.({ bytesDone: Math.min(before + bytesDone, bytesTotal), bytesTotal });
    const found =
      check.found ?? (await failures.attempt(check.path, () => whatItIs(task, check, e2fsckBin, progress)));
    const { kind, path, expected, sizeBytes } = check;
    before += sizeBytes;
    if (found === NOT_READ && kind === 'template' && (await mayBeFile(path))) replaced.push(path);
    // Undefined: it could not be read.
    if (found === NOT_READ || found === undefined) continue;
    read[kind]++;
    if (found !== expected) differences.push({ kind, path, expected, found });
  }
  onProgress?.({ bytesDone: bytesTotal, bytesTotal });
  return { read, replaced, differences };
}

interface TemplateChecks {
  readonly checks: Check[];
  /** The length of the template with each digest. */
  readonly bytesOf: Map<string, number>;
  readonly templatesNotRead: readonly string[];
}

async function templateChecks(task: Task, catalog: Catalog): Promise<TemplateChecks> {
  const pause = new Pause(() => task.checkAborted());
  const checks: Check[] = [];
  const bytesOf = new Map<string, number>();
  const templatesNotRead: string[] = [];
  for (const [name, template] of await catalog.templates(task.signal)) {
    if (pause.isDue) await pause.take();
    if (template === undefined) {
      const path = catalog.templatePath(name);
      if (await mayBeFile(path)) templatesNotRead.push(path);
      continue;
    }
    const { path, sha256, identity } = template;
    const { sizeBytes } = identity;
    bytesOf.set(sha256, sizeBytes);
    checks.push({ kind: 'template', path, sizeBytes, expected: sha256, identity });
  }
  return { checks, bytesOf, templatesNotRead };
}

/** What cannot be looked at, as in a folder whose disk is gone, may be a template. */
async function mayBeFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if (basename(dirname(path)) === LOST_AND_FOUND) return false;
    return !failedWith(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG');
  }
}

async function whatItIs(
  task: Task,
  { kind, path, sizeBytes, expected, identity: listed, record }: Check,
  e2fsckBin: string,
  onProgress: (progress: Progress) => void,
): Promise<string> {
  let source: NativeSource | undefined;
  try {
    const opened = await native().openSource(path);
    source = opened.source;
    const { identity } = opened.info;
    if (listed !== undefined && !sameContents(listed, identity)) return NOT_READ;
    if (record !== undefined && !isSealedFile(record, keyOf(record.sha256, record.sizeBytes), identity)) {
      const isListed = await isStillRecorded(path, record);
      return isListed ? 'another file, or changed since it was sealed' : NOT_READ;
    }
    // It was looked at before all that was read meanwhile.
    if (kind === 'clone' && identity.sizeBytes !== sizeBytes) return NOT_READ;
    if (expected !== CLEAN) return await hashSource(task, source, identity.sizeBytes, onProgress);
    await checkFilesystemClean(path, e2fsckBin, task.signal);
    return CLEAN;
  } catch (error) {
    if (kind === 'clone' && isOfWriter(error)) return NOT_READ;
    if (record !== undefined && !(await isStillRecorded(path, record))) return NOT_READ;
    if (failedWith(error, 'ENOENT')) return record === undefined ? NOT_READ : 'nothing';
    if (error instanceof DamageFound) return error.message;
    throw error;
  } finally {
    if (source !== undefined) native().dispose(source);
  }
}

/** False if the sealed image was removed since it was listed: packed, over the budget, or with its template. */
async function isStillRecorded(path: string, { image }: SealRecord): Promise<boolean> {
  const now = await readRecord(dirname(path));
  return now?.image.inode === image.inode && now.image.ctimeNs === image.ctimeNs;
}

/** Whoever has an image open can change its length, or hold a lease on it, which makes opening it fail. */
function isOfWriter(error: unknown): boolean {
  return failedWith(error, 'EAGAIN') || hasCode(error, 'SOURCE_CHANGED');
}

async function* sealedImages(
  task: Task,
  folder: ManagedFolder,
  failures: Failures,
): AsyncGenerator<Check & { readonly record: SealRecord }> {
  const sealed = `${folder.statePath}/${SEALED_FOLDER}`;
  for (const key of await namesIn(sealed)) {
    task.checkAborted();
    const parts = partsOf(key);
    const record =
      parts && (await failures.attempt(`${sealed}/${key}`, () => readRecord(`${sealed}/${key}`)));
    if (parts === undefined || record === undefined) continue;
    const { sha256, sizeBytes } = parts;
    const grown = record.template.sizeBytes !== sizeBytes;
    yield {
      kind: 'sealed image',
      path: `${sealed}/${key}/${CLONE_ROOTFS_FILE}`,
      sizeBytes,
      expected: grown ? CLEAN : sha256,
      record,
    };
  }
}

async function* clones(
  task: Task,
  folder: ManagedFolder,
  bytesOf: ReadonlyMap<string, number>,
  failures: Failures,
): AsyncGenerator<Check> {
  for (const slot of await slotNames(folder.path)) {
    task.checkAborted();
    const path = `${folder.path}/${slot}`;
    const state = await failures.attempt(path, () =>
      folder.use(({ handle }) => inspectSlot(handle, slot), 'no-staging'),
    );
    if (state === undefined) continue;
    const stamp = parseStamp(state.stamp);
    const unshared = state.image?.regular && state.image.identity.links === 1 && !state.sharesExtents;
    if (stamp === undefined || state.sizeStamp !== undefined || !unshared) continue;
    const use = await failures.attempt(path, () => imageInUse(path));
    if (use === undefined || use === 'in-use') continue;
    const { sizeBytes } = state.image.identity;
    const check = { kind: 'clone', path: `${path}/${CLONE_ROOTFS_FILE}`, expected: stamp } as const;
    const refusal = refusalOf(sizeBytes, bytesOf.get(stamp));
    if (refusal === undefined) yield { ...check, sizeBytes };
    else yield { ...check, sizeBytes: 0, found: refusal };
  }
}

/** A guest can make its image as long as the filesystem allows, and reading that would take years. */
function refusalOf(sizeBytes: number, expectedBytes: number | undefined): string | undefined {
  if (expectedBytes === undefined)
    return sizeBytes <= UNKNOWN_BYTES_LIMIT
      ? undefined
      : `not read: ${sizeBytes} bytes, and a disk whose template is gone may have ${UNKNOWN_BYTES_LIMIT}`;
  return sizeBytes === expectedBytes ? undefined : `${sizeBytes} bytes rather than ${expectedBytes}`;
}
