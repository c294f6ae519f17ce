// Reads a blob or a part of it: from a mirror first, and resumed at the byte that was reached.

import { abortError, RootfsError } from '../system/errors.js';
import { withPauses } from '../system/pause.js';
import type { Task } from '../system/task.js';
import { connectionFailed } from './connection-errors.js';
import type { BlobStream, RegistryClient } from './registry-client.js';
import { isUnavailable, Transient, triesOf, waitToRetry } from './retry.js';
import { DISCARD_LIMIT } from './transport.js';

export interface Blob {
  readonly digest: string;
  readonly size: number;
}

/** Bytes of a blob, and where they begin in it. */
export interface BlobPart {
  readonly start: number;
  readonly bytes: Buffer;
}

interface ReadCallbacks {
  /** Called with the number of bytes that came, used or not. */
  readonly onBytes?: (count: number) => void;
  readonly onBusy?: () => void;
}

/** Less than this is no progress: an answer of a byte each would never end. */
const PROGRESS_BYTES = 64 * 1024;
/** For the end of a body whose bytes have all come. */
const ENDING_MS = 200;

/** What is still to come. */
interface Rest {
  position: number;
  end: number;
  isUntouched: boolean;
}

export class BlobReader {
  /** Mirrors, then the origin. */
  readonly #clients: readonly RegistryClient[];
  readonly #callbacks: ReadCallbacks;

  constructor(clients: readonly RegistryClient[], callbacks: ReadCallbacks = {}) {
    this.#clients = clients;
    this.#callbacks = callbacks;
  }

  /** The same without mirrors: for a blob that was wrong. */
  ofOrigin(): BlobReader {
    return new BlobReader(this.#clients.slice(-1), this.#callbacks);
  }

  /**
   * Yields the bytes from `start` up to `end`. If the registry sends the whole blob instead, yields all of it, from 0
   * on, so that it need not be asked for again.
   */
  async *read(task: Task, blob: Blob, start: number, end: number): AsyncGenerator<BlobPart, void, undefined> {
    const rest: Rest = { position: start, end, isUntouched: true };
    for (const client of this.#clients) {
      if (client.isDown) continue;
      const before = rest.position;
      try {
        yield* readFrom(client, task, blob, rest, this.#callbacks);
        return;
      } catch (error) {
        if (client === this.#clients.at(-1) || task.signal?.aborted) throw error;
        client.isDown ||= isUnavailable(error) && rest.position === before;
      }
    }
  }
}

async function* readFrom(
  client: RegistryClient,
  task: Task,
  blob: Blob,
  rest: Rest,
  callbacks: ReadCallbacks,
): AsyncGenerator<BlobPart, void, undefined> {
  let tries = 0;
  while (rest.position < rest.end) {
    const before = rest.position;
    try {
      const stream = await client.openBlob(task, blob.digest, rest.position, rest.end, blob.size);
      try {
        yield* partsOf(stream, blob, rest, callbacks);
      } finally {
        stream.close();
      }
    } catch (error) {
      if (rest.position >= rest.end && !task.signal?.aborted) return;
      const failure = transientOf(task, client, error);
      // How busy a mirror is says nothing about the registry itself.
      if (failure.isBusy && !client.isMirror) callbacks.onBusy?.();
      // An answer that brought so much was no failed try.
      tries = rest.position - before >= PROGRESS_BYTES ? 1 : tries + 1;
      if (tries >= triesOf(failure, client.isMirror)) throw failure.error;
      await waitToRetry(task, failure, tries);
    }
  }
}

async function* partsOf(
  stream: BlobStream,
  blob: Blob,
  rest: Rest,
  { onBytes }: ReadCallbacks,
): AsyncGenerator<BlobPart, void, undefined> {
  const { start, body } = stream;
  const before = rest.position;
  if (start < rest.position && rest.isUntouched) {
    rest.position = start;
    rest.end = blob.size;
  }
  let at = start;
  let ending: NodeJS.Timeout | undefined;
  try {
    for await (const bytes of withPauses(body)) {
      onBytes?.(bytes.length);
      const useful = bytes.subarray(Math.max(0, rest.position - at), Math.max(0, rest.end - at));
      at += bytes.length;
      if (useful.length > 0) {
        rest.isUntouched = false;
        rest.position += useful.length;
        yield { start: rest.position - useful.length, bytes: useful };
      }
      if (rest.position < rest.end) continue;
      // A body that is read to its end leaves its connection to the next request. If there is more, that costs more.
      if (at - rest.end > DISCARD_LIMIT) return;
      ending ??= setTimeout(() => stream.close(), ENDING_MS);
    }
  } finally {
    clearTimeout(ending);
  }
  if (rest.position >= rest.end) return;
  // Some storage answers a range with a part of it. The next part can be asked for at once.
  const isPart = rest.position - before >= PROGRESS_BYTES;
  throw new Transient(cutOff(blob, rest), false, isPart ? 0 : undefined);
}

/** The failure, if another try may succeed. Throws it otherwise. */
function transientOf(task: Task, { host, repository }: RegistryClient, error: unknown): Transient {
  if (task.signal?.aborted) throw abortError(task.what, task.signal);
  const failure = connectionFailed(new URL(`https://${host}/v2/${repository}/`), error);
  if (failure instanceof Transient) return failure;
  throw failure;
}

function cutOff({ digest }: Blob, { position, end }: Rest): RootfsError {
  return new RootfsError(
    'REGISTRY_FAILED',
    `blob ${digest} ends at byte ${position} instead of ${end}: the registry's copy is cut off, push it again`,
  );
}

/** For a blob that was wrong from the origin, too. */
export function wrongBlob({ digest }: Blob, cause: Error): RootfsError {
  return new RootfsError(
    'DIGEST_MISMATCH',
    `blob ${digest} does not match the artifact, even after fetching it again: ${cause.message}; ` +
      'push it again, and check the registry',
    { cause },
  );
}
