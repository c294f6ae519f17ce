// What the pool knows of the ready slots of one kind: of one source, size, owner and mode.

import type { PoolKey } from './pool-files.js';

/** Makes one ready slot of this kind, and returns the name that `readyName` gave it. */
export type MakeReady = (key: PoolKey, prefix: string, signal: AbortSignal | undefined) => Promise<string>;

/** What a caller asked for. It outlives the template that the ready slots are of. */
export interface PoolRequest {
  /** The same for the same size, owner and mode, as they were asked for. */
  readonly id: string;
  readonly count: number;
  readonly make: MakeReady;
  /** Asks for the same again, of the template as it is now, unless nobody wants it any more by then. */
  readonly renew: (isWanted: () => boolean) => Promise<void>;
}

/** The ready slots that one request keeps. */
export interface PooledKind {
  /** Its template as it was last seen. Another file with the same bytes may have taken its place. */
  key: PoolKey;
  readonly prefix: string;
  readonly ready: string[];
  /** Names on disk that this process knows, including those it has taken. */
  readonly seen: Set<string>;
  readonly request: PoolRequest;
  /** When it was last looked for in the folder, where other processes make and take ready slots as well. */
  listedAtMs: number;
  /** Its template has changed, or is gone: nobody takes from it. The next clone of that path renews it. */
  isStale: boolean;
  /** Its caller waits for the first filling, and asks again if the template changes. */
  isAwaited: boolean;
  /** The digest of the template that it was last renewed for. A renewal that failed would fail again at each clone. */
  renewedFor: string | undefined;
  /** When it can be tried again for the same template. */
  renewAgainAtMs: number;
  /** Also while it is renewed. */
  filling: Promise<void> | undefined;
}
