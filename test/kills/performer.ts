// The process that performs calls: started, told, listened to, killed.
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { onTestFinished } from 'vitest';
import type { RootfsConfig } from '../../src/index.js';
import type { Call } from './operations.js';

const PROGRAM = resolve('test/kills/performer.cjs');

export interface Threads {
  /** The main thread. */
  readonly process: number;
  /** The one thread of the pool. */
  readonly pool: number;
}

/** An error as it was told by the process. */
export interface ToldError {
  /** One of ours. */
  readonly typed: boolean;
  readonly code?: string;
  readonly message: string;
  readonly stack: string;
}

export interface Performed {
  readonly outcome: { readonly value?: unknown; readonly error?: ToldError };
  readonly warnings: readonly string[];
}

export class Performer {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #replies: AsyncIterator<string>;
  #stderr = '';
  /** Resolves to the signal that ended the process. */
  readonly gone: Promise<NodeJS.Signals | null>;

  private constructor(env: Readonly<Record<string, string>>) {
    this.#child = spawn(process.execPath, [PROGRAM], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '1', NODE_NO_WARNINGS: '1', ...env },
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    // A process that was killed does not read what it is told.
    this.#child.stdin.on('error', () => {});
    this.#replies = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.gone = new Promise((resolve) => this.#child.on('close', (_, signal) => resolve(signal)));
    onTestFinished(() => this.kill());
  }

  static start(env: Readonly<Record<string, string>> = {}): Performer {
    return new Performer(env);
  }

  prepare(config: Partial<RootfsConfig>, calls: readonly Call[]): Promise<Threads> {
    return this.#ask({ action: 'prepare', config, calls }) as Promise<Threads>;
  }

  /** Undefined if the process ended rather than answer. */
  async perform(call: Call): Promise<Performed | undefined> {
    return (await this.#ask({ action: 'perform', call }, true)) as Performed | undefined;
  }

  async close(): Promise<void> {
    await this.#ask({ action: 'close' });
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.gone;
  }

  async #ask(request: object, mayEnd = false): Promise<unknown> {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#replies.next();
    if (done === true) {
      // Its last words come after its answers have ended.
      const signal = await this.gone;
      if (mayEnd && this.#stderr === '') return undefined;
      throw new Error(
        `the performer ended (${signal ?? `exit status ${this.#child.exitCode}`}): ${this.#stderr}`,
      );
    }
    const reply = JSON.parse(value);
    if (reply.failed !== undefined) throw new Error(`the performer failed: ${reply.failed}`);
    return reply;
  }
}
