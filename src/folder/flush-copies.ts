// Flushes slots whose copied images have not reached the disk yet.
//
// A flush takes longer than a copy, so a copied slot appears before its data is flushed. Until then a file in the slot
// holds the id of this boot. If the machine goes down, the next boot finds the id of another boot there, and nobody
// trusts the image.

import { type NativeFolder, native } from '../addon/native.js';
import { bootId } from '../system/boot-id.js';
import { inFlushTurn } from '../system/flush.js';
import { inTurn } from '../system/long-work.js';
import type { Task } from '../system/task.js';

// Each holds a descriptor while it is flushed.
const AT_ONCE = 32;

/** Many slots share one flush: those that come while it runs wait for the next one. */
export class CopyFlusher {
  readonly #flush: (slots: readonly string[]) => Promise<void>;
  readonly #waiting = new Set<string>();
  #running: Promise<void> | undefined;

  /** `flush` never rejects. */
  constructor(flush: (slots: readonly string[]) => Promise<void>) {
    this.#flush = flush;
  }

  /** Takes the folder name of a slot that was just copied. */
  add(slot: string): void {
    this.#waiting.add(slot);
    this.#running ??= this.#flushAll();
  }

  /** Resolves when all slots that were added are flushed. */
  async drain(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #flushAll(): Promise<void> {
    while (this.#waiting.size > 0) {
      const slots = [...this.#waiting];
      this.#waiting.clear();
      await this.#flush(slots);
    }
    this.#running = undefined;
  }
}

/** Flushes these slots now, if they were copied in this boot. One that cannot be flushed stops no other. */
export async function flushCopiedSlots(
  task: Task,
  handle: NativeFolder,
  slots: readonly string[],
): Promise<void> {
  const id = bootId();
  if (id === undefined) return;
  let first: { readonly error: unknown } | undefined;
  for (let i = 0; i < slots.length; i += AT_ONCE) {
    const some = slots.slice(i, i + AT_ONCE);
    const flush = () => inFlushTurn('copied slots', () => native().flushCopiedSlots(handle, some, id));
    try {
      await inTurn(task, flush);
    } catch (error) {
      task.checkAborted();
      first ??= { error };
    }
  }
  if (first !== undefined) throw first.error;
}
