// Pools of ZFS in files, for tests in the guests of npm run test:guests. Each is gone when its test is done.
import { execFile } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { expect, onTestFinished } from 'vitest';
import { KiB, MiB, pattern } from '../fixtures/images.js';

const execute = promisify(execFile);

const run = async (program: string, ...args: string[]) => (await execute(program, args)).stdout.trim();

/** What a pool does with a failure: new work fails, or all work waits. */
export type FailMode = 'continue' | 'wait';

export class Pool {
  readonly name: string;
  /** Where its dataset is mounted. */
  readonly path: string;
  readonly #memory: string;
  #hangs: Promise<unknown> = Promise.resolve();

  private constructor(folder: string) {
    this.name = basename(folder);
    this.path = join(folder, 'mounted');
    this.#memory = join(folder, 'memory');
  }

  /** A pool of 256 MiB. Its file lies sparse in a tmpfs of its own, which is smaller. */
  static async create(failMode: FailMode = 'wait'): Promise<Pool> {
    const pool = new Pool(await mkdtemp(join(tmpdir(), 'pool-')));
    await mkdir(pool.#memory);
    await run('mount', '-t', 'tmpfs', '-o', 'size=192m', 'tmpfs', pool.#memory);
    await writeFile(pool.#file, '');
    await truncate(pool.#file, 256 * MiB);
    onTestFinished(() => pool.#destroy());
    const options = ['-o', `failmode=${failMode}`, '-O', 'compression=off', '-O', `mountpoint=${pool.path}`];
    await run('zpool', 'create', ...options, pool.name, pool.#file);
    return pool;
  }

  get #file(): string {
    return join(this.#memory, 'vdev');
  }

  get #ballast(): string {
    return join(this.#memory, 'ballast');
  }

  zfs(...args: string[]): Promise<string> {
    return run('zfs', ...args, this.name);
  }

  /** What is open there stays open. */
  unmountLazily(): Promise<string> {
    return run('umount', '--lazy', this.path);
  }

  /** Waits until what was written is on disk, and what was removed is free. */
  sync(): Promise<string> {
    return run('zpool', 'sync', this.name);
  }

  export(): Promise<string> {
    return run('zpool', 'export', this.name);
  }

  import(...options: string[]): Promise<string> {
    return run('zpool', 'import', ...options, '-d', this.#memory, this.name);
  }

  /** Writes to the pool until nothing more fits. Returns the file, whose removal makes room. */
  async fill(): Promise<string> {
    const path = join(this.path, 'ballast');
    for (let round = 0; round < 3; round++) {
      await writeUntilFull(path, pattern(256 * KiB));
      await writeUntilFull(path, pattern(4 * KiB));
      await this.sync(); // what ZFS had put aside may fit after all
    }
    return path;
  }

  /** Lets the disk fail: there is no room for new blocks in the tmpfs, and something is written. */
  async suspend(): Promise<void> {
    await writeUntilFull(this.#ballast, Buffer.alloc(MiB, 1));
    await writeUntilFull(this.#ballast, Buffer.alloc(4 * KiB, 1));
    // These wait until the pool is healed, whatever the fail mode.
    await run('dd', 'if=/dev/urandom', `of=${join(this.path, 'written')}`, 'bs=1M', 'count=4');
    this.#hangs = this.sync().catch(() => undefined);
    onTestFinished(() => this.#healIfSuspended()); // before what else a test leaves behind is removed
    await waitUntil(async () => (await this.state()) === 'SUSPENDED');
  }

  async heal(): Promise<void> {
    await rm(this.#ballast, { force: true });
    await run('zpool', 'clear', this.name);
    await waitUntil(async () => (await this.state()) === 'ONLINE');
    await this.#hangs;
  }

  /** Does not wait for the pool, as zpool(8) may. */
  async state(): Promise<string> {
    return (await readFile(`/proc/spl/kstat/zfs/${this.name}/state`, 'utf8')).trim();
  }

  async #healIfSuspended(): Promise<void> {
    if ((await this.state()) === 'SUSPENDED') await this.heal();
  }

  async #destroy(): Promise<void> {
    await run('zpool', 'destroy', '-f', this.name);
    await run('umount', this.#memory);
  }
}

async function writeUntilFull(path: string, block: Buffer): Promise<void> {
  try {
    for (;;) await appendFile(path, block);
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
  }
}

async function waitUntil(isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await isSo()); tries++) {
    if (tries >= 600) throw new Error('the pool is not in the state that was waited for after 60 s');
    await sleep(100);
  }
}
