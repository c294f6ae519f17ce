// A VM on a clone: QEMU, with the drive as `toQemuDrive` tells it, and a guest that runs a shell script.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { expect, onTestFinished } from 'vitest';
import { type DriveOptions, toQemuDrive } from '../../src/index.js';
import { findTool } from '../fixtures/tools.js';
import { guest } from './guest.js';
import { Monitor } from './monitor.js';

// Emulation hardly ever hangs. No verdict depends on it: a guest that is ended like this has not printed its last line.
const ENDED_AFTER_MS = 120_000;

const ENDED = /^guest: ended with status (\d+)$/m;

export interface VmOptions extends DriveOptions {
  /** It waits for the memory of another VM, see `goOn`, and runs no script of its own. */
  readonly waits?: boolean;
}

type Disk = Parameters<typeof toQemuDrive>[0];

export class Vm {
  readonly #qemu: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #monitor: Promise<Monitor>;
  #log = '';
  #changed: () => void = () => {};

  /** Starts it. The script's exit status counts, and each command's (`sh -e`). */
  constructor(disk: Disk, script: string, { waits, ...drive }: VmOptions = {}) {
    const how = drive.readOnly === true || disk.sharesTemplateInode === true ? 'ro' : 'rw';
    const encoded = Buffer.from(script).toString('base64');
    this.#qemu = spawn(
      'setpriv',
      [
        // It ends with this process, also by SIGKILL.
        ...['--pdeathsig', 'KILL', findTool('qemu-system-x86_64') ?? ''],
        ...['-M', 'q35', '-accel', 'tcg', '-cpu', 'qemu64', '-m', '128', '-smp', '1'],
        ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
        ...['-chardev', 'socket,id=monitor,fd=3', '-mon', 'chardev=monitor,mode=control'],
        ...toQemuDrive(disk, drive),
        ...['-kernel', guest().kernel, '-initrd', guest().initramfs],
        ...['-append', `console=ttyS0 quiet panic=-1 ${how} vmtest=${encoded}`],
        ...(waits === true ? ['-incoming', 'defer'] : []),
      ],
      { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] },
    );
    this.#exited = once(this.#qemu, 'close');
    this.#monitor = Monitor.on(this.#qemu.stdio[3] as Socket);
    this.#monitor.catch(() => undefined); // It may end before anybody asks.
    const watch = (text: string) => {
      this.#log += text;
      this.#changed();
    };
    this.#qemu.stdout?.setEncoding('utf8').on('data', watch);
    this.#qemu.stderr?.setEncoding('utf8').on('data', watch);
    const timer = setTimeout(() => this.#qemu.kill('SIGKILL'), ENDED_AFTER_MS);
    onTestFinished(async () => {
      clearTimeout(timer);
      await this.kill();
    });
  }

  /** Resolves when the guest has printed this line. */
  async printed(line: string): Promise<void> {
    const ended = this.#exited.then(() => 'ended');
    while (!this.#lines().includes(line)) {
      const changed = new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
      if ((await Promise.race([changed, ended])) === 'ended' && !this.#lines().includes(line))
        expect.fail(`the VM ended before it printed "${line}":\n${this.#log}`);
    }
  }

  /** A line for the guest, which waits for it with `read`. */
  say(line: string): void {
    this.#qemu.stdin?.write(`${line}\n`);
  }

  /**
   * Resolves when the guest has shut down, to what its script printed. Nothing but the guest's own last line says that
   * all went well.
   */
  async done(): Promise<string> {
    await this.#exited;
    const status = ENDED.exec(this.#log)?.[1];
    if (status !== '0' || /panic|I\/O error|EXT4-fs (error|warning)/.test(this.#log))
      expect.fail(`the VM did not do what it was to do:\n${this.#log}`);
    const lines = this.#lines();
    const first = lines.indexOf('guest: started') + 1; // From the beginning where a VM goes on.
    return lines.slice(first, lines.indexOf('guest: ended with status 0')).join('\n').trim();
  }

  /** Goes on where a VM was stopped whose memory was saved. */
  async goOn(memory: string): Promise<void> {
    const monitor = await this.monitor();
    await monitor.loadMemory(memory);
    await monitor.ask('cont');
  }

  /** Power off, at once. */
  async kill(): Promise<void> {
    this.#qemu.kill('SIGKILL');
    await this.#exited;
  }

  monitor(): Promise<Monitor> {
    return this.#monitor;
  }

  #lines(): string[] {
    return this.#log.split('\n').map((line) => line.trimEnd());
  }
}

/** Boots a VM, lets it run its script to the end, and returns what that printed. */
export function boot(disk: Disk, script: string, options: VmOptions = {}): Promise<string> {
  return new Vm(disk, script, options).done();
}
