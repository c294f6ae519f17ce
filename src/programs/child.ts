// A process that this one has started, and its pipes. Node's spawn() forks on the thread of the event loop, and holds
// it for 10 ms for every 250 MB of this process.

import { closeSync, createReadStream, createWriteStream } from 'node:fs';
import { Socket } from 'node:net';
import { constants } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../addon/native.js';

/** What `waitpid` reports: a byte of exit status, above seven bits of the signal that ended it. */
const SIGNAL_BITS = 0x7f;
const STATUS_SHIFT = 8;

const LONGEST_REST_MS = 50;

export interface Ending {
  /** Null if a signal ended it. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ChildOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly feeds: boolean;
  readonly ownGroup: boolean;
  /** Killed when this process ends, even by SIGKILL. It has another descriptor for that: 3. */
  readonly diesWithUs: boolean;
  /** Where it writes instead of to `stdout`. */
  readonly outputFd: number | undefined;
}

export class Child {
  readonly stdin: Writable | undefined;
  readonly stdout: Readable | undefined;
  readonly stderr: Readable;
  /** When it has ended and its output was read. */
  readonly ended: Promise<Ending>;
  readonly #id: number;
  readonly #lifeline: number | undefined;
  #isReaped = false;

  /** Rejects with the system's error if the program cannot be started. */
  static async start(command: readonly string[], options: ChildOptions): Promise<Child> {
    const environment = Object.entries(options.env).flatMap(([name, value]) =>
      value === undefined ? [] : [`${name}=${value}`],
    );
    const { feeds, ownGroup, diesWithUs, outputFd } = options;
    return new Child(
      await native().startProgram(command, environment, feeds, ownGroup, diesWithUs, outputFd),
    );
  }

  private constructor({ id, stdin, stdout, stderr, lifeline }: Awaited<ReturnType<Native['startProgram']>>) {
    this.#id = id;
    this.#lifeline = lifeline;
    this.stdin = stdin === undefined ? undefined : writerTo(stdin);
    this.stdout = stdout === undefined ? undefined : readerOf(stdout);
    this.stderr = readerOf(stderr);
    this.ended = this.#end();
  }

  /** Does nothing once it has ended: by then another process may have its id. */
  kill(): void {
    if (this.#isReaped) return;
    process.kill(this.#id, 'SIGKILL');
    // What it has started may hold them open.
    this.stdout?.destroy();
    this.stderr.destroy();
  }

  async #end(): Promise<Ending> {
    await Promise.all([this.stdout, this.stderr].map(closed));
    // It closes its pipes an instant before it has ended, unless it means to go on without them.
    for (let restMs = 1; ; restMs = Math.min(2 * restMs, LONGEST_REST_MS)) {
      const status = native().reapProgram(this.#id);
      if (status !== undefined) {
        this.#isReaped = true;
        if (this.#lifeline !== undefined) closeSync(this.#lifeline);
        this.stdin?.destroy();
        return endingOf(status);
      }
      await sleep(restMs);
    }
  }
}

type Native = ReturnType<typeof native>;

// A Socket waits in the event loop; a file stream keeps a thread of the pool waiting. Bun's Socket takes no descriptor.
const IS_BUN = 'bun' in process.versions;

function readerOf(fd: number): Readable {
  return IS_BUN ? createReadStream('', { fd }) : new Socket({ fd, writable: false });
}

function writerTo(fd: number): Writable {
  return IS_BUN ? createWriteStream('', { fd }) : new Socket({ fd, readable: false });
}

function closed(stream: Readable | undefined): Promise<void> | undefined {
  return stream && new Promise((resolve) => stream.once('close', resolve));
}

function endingOf(status: number): Ending {
  const number = status & SIGNAL_BITS;
  if (number === 0) return { status: status >> STATUS_SHIFT, signal: null };
  const named = Object.entries(constants.signals).find(([, each]) => each === number);
  return { status: null, signal: (named?.[0] ?? 'SIGKILL') as NodeJS.Signals };
}
