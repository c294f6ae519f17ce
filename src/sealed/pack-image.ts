// Makes a packed copy of a sealed image: the same bytes in few extents, written once. It is published beside the plain
// image, which is then removed.

import { statfs } from 'node:fs/promises';
import { native, RUNG } from '../addon/native.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { extentCount } from '../image/extents.js';
import { asRootfsError } from '../system/errors.js';
import { inSlices } from '../system/long-work.js';
import type { Task } from '../system/task.js';
import type { SealedImage } from './open-images.js';
import { isSpacePlenty, sawCopy } from './packing.js';
import { publish } from './seal-image.js';
import type { SealRecord } from './seal-record.js';

// A few milliseconds of work, so that it stops promptly.
const SLICE_BYTES = 4 * 1024 * 1024;

/** The outcome, and the reason for it. */
export type PackOutcome = 'packed' | 'few-extents' | 'no-space' | 'no-gain' | 'changed';

export interface PackRequest {
  readonly image: SealedImage;
  readonly record: SealRecord;
  readonly dataBytes: number;
  /** At idle priority for the disk. */
  readonly idle: boolean;
}

/** Rejects with `ABORT_ERR` if stopped, and then leaves nothing behind. */
export async function packImage(
  task: Task,
  folder: OpenFolder,
  { image, record, dataBytes, idle }: PackRequest,
): Promise<PackOutcome> {
  const { bsize, blocks, bavail } = await statfs(folder.sessionPath);
  if (!isSpacePlenty(dataBytes, bavail * bsize, blocks * bsize)) return 'no-space';
  const started = performance.now();
  // The digest of a grown image is not known.
  const isGrown = record.template.sizeBytes !== record.sizeBytes;
  const { staged, imagePath } = await native().stageImage(folder.handle, image.source, {
    sidecars: [],
    expected: image.identity,
    rungs: RUNG.copy,
    packed: true,
    unhashed: isGrown,
    mode: 0o444,
    durable: false,
  });
  try {
    const { sha256 } = await inSlices(task, async () => {
      const step = await native().copyStep(staged, SLICE_BYTES, idle);
      return step.done ? step : undefined;
    });
    sawCopy(dataBytes, performance.now() - started);
    if (!isGrown && sha256 !== record.sha256) return 'changed';
    if (!(await gains(imagePath, image.extents))) return 'no-gain';
    const { templatePath, template, catalogInode, sizeBytes } = record;
    const of = { templatePath, template, ...(catalogInode === undefined ? {} : { catalogInode }) };
    const whole = { ...of, sha256: record.sha256, sizeBytes };
    const published = await publish(task, { staged, imagePath }, whole, { flushed: true }, 'packed');
    return published === 'source-changed' ? 'changed' : 'packed';
  } catch (error) {
    throw asRootfsError(task.what, error);
  } finally {
    await native().discardSlot(staged);
  }
}

/** Packing is worth its space if it leaves less than half of the extents. */
async function gains(path: string, before: number | undefined): Promise<boolean> {
  const { source } = await native().openSource(path);
  try {
    const after = await extentCount(source);
    return after === undefined || before === undefined || after * 2 <= before;
  } finally {
    native().dispose(source);
  }
}
