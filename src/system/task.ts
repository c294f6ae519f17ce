import { abortError } from './errors.js';

/** What a call is doing, for its messages, and the signal by which its caller can end it. */
export class Task {
  readonly what: string;
  readonly signal: AbortSignal | undefined;

  constructor(what: string, signal: AbortSignal | undefined) {
    this.what = what;
    this.signal = signal;
  }

  /** Between two steps: throws `ABORT_ERR` if the caller has ended the call. */
  checkAborted(): void {
    if (this.signal?.aborted) throw abortError(this.what, this.signal);
  }

  /** The same work, ended by another signal. */
  endedBy(signal: AbortSignal): Task {
    return new Task(this.what, signal);
  }
}
