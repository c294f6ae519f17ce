// Acts when a signal is aborted. One signal may be given to all calls of a program's life, and to many at once. Node
// warns of a leak at its eleventh listener, so all actions share one. AbortSignal.any() would leave something in the
// signal for each call.
import { setMaxListeners } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';

// Actions in one turn of the event loop. What each lets go on, such as a rejection with its error, takes longer.
const AT_ONCE = 64;

interface Listening {
  readonly actions: Set<() => void>;
  readonly listener: () => void;
}

const listening = new WeakMap<AbortSignal, Listening>();

/** Runs `action` when `signal` is aborted later. Returns what to call when nobody waits for that any more. */
export function onAbort(signal: AbortSignal | undefined, action: () => void): () => void {
  if (signal === undefined) return () => {};
  const { actions, listener } = listening.get(signal) ?? listenTo(signal);
  actions.add(action);
  return () => {
    actions.delete(action);
    if (actions.size > 0) return;
    signal.removeEventListener('abort', listener);
    listening.delete(signal);
  };
}

function listenTo(signal: AbortSignal): Listening {
  const actions = new Set<() => void>();
  const listener = async () => {
    let acted = 0;
    for (const action of actions) {
      action();
      if (++acted % AT_ONCE === 0) await nextTurn();
    }
  };
  signal.addEventListener('abort', listener, { once: true });
  const started = { actions, listener };
  listening.set(signal, started);
  return started;
}

/** A controller whose signal any number of jobs may wait for. */
export function newController(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/** Runs `work` with a controller of its own, which an abort of `given` aborts too. */
export async function withController<T>(
  given: AbortSignal | undefined,
  work: (own: AbortController) => Promise<T>,
): Promise<T> {
  const own = newController();
  const abort = () => own.abort(given?.reason);
  if (given?.aborted) abort();
  const stop = onAbort(given, abort);
  try {
    return await work(own);
  } finally {
    stop();
  }
}
