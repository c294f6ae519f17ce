// What QEMU is told while it runs, by its machine protocol (QMP) on a socket of its own.
import type { Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';

interface Message {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
  readonly data?: { readonly status?: string };
}

export class Monitor {
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;
  /** Events that came while an answer was waited for. */
  readonly #events: Message[] = [];

  private constructor(socket: Socket, lines: Interface) {
    this.#socket = socket;
    this.#lines = lines[Symbol.asyncIterator]();
  }

  static async on(socket: Socket): Promise<Monitor> {
    const monitor = new Monitor(socket, createInterface(socket));
    await monitor.#next(); // its greeting
    await monitor.ask('qmp_capabilities');
    return monitor;
  }

  /** What it answers. One question at a time. */
  async ask(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    for (;;) {
      const message = await this.#next();
      if (message.error !== undefined) throw new Error(`QEMU refuses ${command}: ${message.error.desc}`);
      if ('return' in message) return message.return;
      this.#events.push(message);
    }
  }

  /** Writes the memory and the devices of a VM that is stopped to a file. */
  async saveMemory(path: string): Promise<void> {
    await this.#migrate('migrate', `exec:cat >${path}`);
  }

  /** Reads them into a VM that was started without. */
  async loadMemory(path: string): Promise<void> {
    await this.#migrate('migrate-incoming', `exec:cat ${path}`);
  }

  async #migrate(command: string, uri: string): Promise<void> {
    await this.ask('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    await this.ask(command, { uri });
    for (;;) {
      const { event, data } = this.#events.shift() ?? (await this.#next());
      if (event !== 'MIGRATION') continue;
      if (data?.status === 'completed') return;
      if (data?.status === 'failed') throw new Error(`${command} ${uri} failed`);
    }
  }

  async #next(): Promise<Message> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new Error('QEMU closed its monitor');
    return JSON.parse(value);
  }
}
