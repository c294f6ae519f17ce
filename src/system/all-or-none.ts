// Work on many things of which all are wanted, or none.
import { withController } from './on-abort.js';
import { Pause } from './pause.js';

interface AllOrNone<T, R> {
  readonly items: readonly T[];
  readonly atOnce: number;
  readonly signal: AbortSignal | undefined;
  readonly work: (item: T, signal: AbortSignal, index: number) => Promise<R>;
}

/**
 * The results in the order of the items. After the first failure nothing more is begun and what runs is aborted; when
 * that has ended, it rejects with that failure.
 */
export function allOrNone<T, R>({ items, atOnce, signal, work }: AllOrNone<T, R>): Promise<R[]> {
  return withController(signal, async (own) => {
    const results = new Array<R>(items.length);
    let first: { readonly error: unknown } | undefined;
    let next = 0;
    const pause = new Pause();
    const workThrough = async () => {
      while (next < items.length && first === undefined) {
        const i = next++;
        results[i] = await work(items[i] as T, own.signal, i);
        if (pause.isDue) await pause.take();
      }
    };
    const abortOthers = (error: unknown) => {
      first ??= { error };
      own.abort(error);
    };
    const lanes = Math.min(atOnce, items.length);
    await Promise.all(Array.from({ length: lanes }, () => workThrough().catch(abortOthers)));
    if (first !== undefined) throw first.error;
    return results;
  });
}
