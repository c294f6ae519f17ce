// Lists the pool, whichever process filled it.
import { basename, dirname, join } from 'node:path';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import type { Owner } from '../system/arguments.js';
import { asRootfsError } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { Pause } from '../system/pause.js';
import { sortedBy } from '../system/sorted-names.js';
import { POOL_FOLDER } from '../system/state-folder.js';
import { Task } from '../system/task.js';
import { parseReadyName, readPoolRecord, recordOf } from './pool-files.js';

/** Ready slots of one kind: one stack or snapshot, size, owner and mode. */
export interface ReadySlots {
  /** Empty for a snapshot of which no stack is known. */
  readonly stack: string;
  /** The snapshot that they are of. Undefined if they are of the stack's template. */
  readonly snapshot?: string;
  readonly sourceSha256: string;
  readonly sizeBytes: number;
  /** Undefined: the owner is that of the process that made them. */
  readonly owner: Owner | undefined;
  readonly mode: number | undefined;
  readonly count: number;
}

export async function readySlots(folder: ManagedFolder): Promise<ReadySlots[]> {
  const path = join(folder.statePath, POOL_FOLDER);
  const kinds = new Map<string, ReadySlots & { count: number }>();
  /** Kinds without a record that can be read. */
  const passedOver = new Set<string>();
  const task = new Task(`looking at the pool in ${folder.path}`, undefined);
  const failures = new Failures(task);
  const pause = new Pause();
  try {
    for (const name of await namesIn(path)) {
      if (pause.isDue) await pause.take();
      const ready = parseReadyName(name);
      if (ready === undefined) continue;
      const { kind, sha256, sizeBytes, owner, mode } = ready;
      const known = kinds.get(kind);
      if (known !== undefined) known.count++;
      if (known !== undefined || passedOver.has(kind)) continue;
      passedOver.add(kind);
      const record = await failures.attempt(name, () => readPoolRecord(join(path, recordOf(name))));
      // Ready slots without a record are not kept; recover() removes them.
      if (record === undefined) continue;
      const { snapshot } = record;
      kinds.set(kind, {
        stack: snapshot === undefined ? basename(dirname(record.templatePath)) : (snapshot.stack ?? ''),
        ...(snapshot && { snapshot: snapshot.name }),
        sourceSha256: sha256,
        sizeBytes,
        owner,
        mode,
        count: 1,
      });
    }
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
  const sizeOf = ({ sizeBytes }: ReadySlots) => String(sizeBytes).padStart(16, '0');
  const sorted = await sortedBy([...kinds], ([kind, slots]) => `${slots.stack}\0${sizeOf(slots)}\0${kind}`);
  const report = sorted.map(([, slots]) => slots);
  failures.throwIfAny(report);
  return report;
}
