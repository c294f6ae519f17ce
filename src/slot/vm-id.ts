import { isWellFormed, NAME_BYTES_LIMIT, show } from '../system/arguments.js';
import { RootfsError } from '../system/errors.js';
import { LargeSet } from '../system/large-set.js';
import { Pause } from '../system/pause.js';
import type { Task } from '../system/task.js';

/** A VM's raw id, and the name of its slot (`safe`). */
export interface VmId {
  readonly raw: string;
  readonly safe: string;
}

// A slot's name is ASCII: its characters are its bytes.
const PLAIN = new RegExp(`^[A-Za-z0-9_-]{1,${NAME_BYTES_LIMIT}}$`);

/**
 * The folder name of a VM id: ASCII letters, digits, `-` and `_` pass, every other code point becomes one `_`.
 * Two ids can have the same safe form; cloning refuses the second with `VM_ID_COLLISION`. Throws `INVALID_VM_ID` for
 * what is not a string.
 */
export function safeVmId(id: string): string {
  if (typeof id !== 'string') throw invalid(id, 'it must be a string');
  return id.replace(/[^A-Za-z0-9_-]/gu, '_');
}

/** Throws `INVALID_VM_ID`. */
export function parseVmId(id: unknown): VmId {
  if (typeof id !== 'string') throw invalid(id, 'it must be a string');
  if (PLAIN.test(id)) return { raw: id, safe: id };
  // A character has two units of UTF-16 at most. To count those of a long id would hold the event loop.
  if (id.length > 2 * NAME_BYTES_LIMIT)
    throw invalid(id, `its folder name would have more than ${NAME_BYTES_LIMIT} characters`);
  // A file of NUL bytes is what a power cut can leave of one.
  if (id.replaceAll('\0', '') === '') throw invalid(id, 'it is empty');
  // Without a UTF-8 form, two such ids would be the same on disk.
  if (!isWellFormed(id)) throw invalid(id, 'it holds a lone surrogate');
  const safe = safeVmId(id);
  if (safe.length > NAME_BYTES_LIMIT)
    throw invalid(
      id,
      `its folder name would have ${safe.length} characters, the limit is ${NAME_BYTES_LIMIT}`,
    );
  return { raw: id, safe };
}

/** Checks any number of ids without holding the event loop. Rejects with `INVALID_VM_ID`. */
export async function rawIds(task: Task, ids: readonly unknown[]): Promise<LargeSet> {
  const raw = new LargeSet();
  const pause = new Pause(() => task.checkAborted());
  for (const id of ids) {
    if (pause.isDue) await pause.take();
    raw.add(parseVmId(id).raw);
  }
  return raw;
}

function invalid(id: unknown, why: string): RootfsError {
  return new RootfsError('INVALID_VM_ID', `invalid VM id ${show(id)}: ${why}`);
}

/** The raw id, if the slot's name alone does not give it. */
export function rawIdToStore({ raw, safe }: VmId): string | undefined {
  return raw === safe ? undefined : raw;
}
