// Measures what slots, templates and our own images hold on disk. Uses FIEMAP, and counts blocks shared by several
// files once.

import { readdir, statfs } from 'node:fs/promises';
import { type NativeDiskUsage, native } from '../addon/native.js';
import type { StackNames } from '../catalog/stack-names.js';
import type { Template } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { SlotInfo } from '../slot/slot-info.js';
import { listSlots } from '../slot/slot-list.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
import { asRootfsError, failedWith, isSystemError } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { isMissing } from '../system/is-missing.js';
import { Task } from '../system/task.js';

// Files per native call: a few milliseconds of work.
const BATCH = 64;

export interface StackUsage {
  /** Undefined for slots and images of an unknown stack. */
  readonly stack: string | undefined;
  readonly slots: number;
  /** Bytes on disk of the stack's template. */
  readonly templateBytes: number;
  /** Bytes on disk that only its slots hold: releasing all of them frees at least this much. */
  readonly aloneBytes: number;
  /**
   * Bytes on disk of the template, sealed images, ready slots and slots, with shared blocks counted once: the total
   * cost of the stack.
   */
  readonly totalBytes: number;
}

export interface UsageReport {
  /** Sorted by name. */
  readonly stacks: readonly StackUsage[];
  readonly slots: number;
  /** The total over all stacks. Blocks shared by several stacks are counted once. */
  readonly totalBytes: number;
  /** The filesystem of the clones folder. Undefined if the folder does not exist. */
  readonly filesystem: { readonly sizeBytes: number; readonly availableBytes: number } | undefined;
}

interface Account {
  readonly diskUsage: NativeDiskUsage;
  /** Slots that have not been measured yet. */
  readonly paths: string[];
  slots: number;
  templateBytes: number;
  aloneBytes: number;
}

export async function usage(
  folder: ManagedFolder,
  names: StackNames,
  templates: ReadonlyMap<string, Template | undefined>,
  signal: AbortSignal | undefined,
): Promise<UsageReport> {
  const task = new Task(`measuring ${folder.path}`, signal);
  const accounts = new Accounts(task);
  try {
    await accounts.addTemplates(templates);
    await accounts.addOurImages(folder, names);
    await accounts.addSlots(listSlots(folder, names, signal));
    return { ...(await accounts.report()), filesystem: await filesystemOf(folder.path) };
  } catch (error) {
    throw asRootfsError(task.what, error);
  } finally {
    accounts.dispose();
  }
}

/** One account per stack, and the total. */
class Accounts {
  readonly #task: Task;
  readonly #failures: Failures;
  readonly #whole = native().newDiskUsage();
  readonly #accounts = new Map<string | undefined, Account>();

  constructor(task: Task) {
    this.#task = task;
    this.#failures = new Failures(task);
  }

  async addTemplates(templates: ReadonlyMap<string, Template | undefined>): Promise<void> {
    for (const [stack, template] of templates) {
      const account = this.#of(stack);
      if (template !== undefined)
        account.templateBytes = (await this.#addBlocks(account, [template.path])).bytes;
    }
  }

  /** Sealed images and ready slots. */
  async addOurImages({ statePath }: ManagedFolder, names: StackNames): Promise<void> {
    for (const place of ['sealed', 'pool']) {
      for (const name of await namesIn(`${statePath}/${place}`)) {
        const account = this.#of(await names.firstWith(name.slice(0, 64)));
        await this.#addBlocks(account, [`${statePath}/${place}/${name}/${CLONE_ROOTFS_FILE}`]);
      }
    }
  }

  async addSlots(slots: AsyncIterable<SlotInfo>): Promise<void> {
    for await (const { stack, path } of slots) {
      const account = this.#of(stack);
      account.slots++;
      if (account.paths.push(path) === BATCH) await this.#flush(account);
    }
    for (const account of this.#accounts.values()) await this.#flush(account);
  }

  async report(): Promise<Omit<UsageReport, 'filesystem'>> {
    this.#failures.throwIfAny();
    const stacks: StackUsage[] = [];
    let total = 0;
    for (const [stack, { diskUsage, slots, templateBytes, aloneBytes }] of this.#accounts) {
      total += slots;
      stacks.push({
        stack,
        slots,
        templateBytes,
        aloneBytes,
        totalBytes: await native().diskUsageTotal(diskUsage),
      });
    }
    stacks.sort((a, b) => Buffer.compare(Buffer.from(a.stack ?? ''), Buffer.from(b.stack ?? '')));
    return { stacks, slots: total, totalBytes: await native().diskUsageTotal(this.#whole) };
  }

  dispose(): void {
    for (const { diskUsage } of this.#accounts.values()) native().dispose(diskUsage);
    native().dispose(this.#whole);
  }

  #of(stack: string | undefined): Account {
    const there = this.#accounts.get(stack);
    if (there !== undefined) return there;
    const diskUsage = native().newDiskUsage(this.#whole);
    const account = { diskUsage, paths: [], slots: 0, templateBytes: 0, aloneBytes: 0 };
    this.#accounts.set(stack, account);
    return account;
  }

  async #flush(account: Account): Promise<void> {
    account.aloneBytes += (await this.#addBlocks(account, account.paths.splice(0))).aloneBytes;
  }

  async #addBlocks(
    { diskUsage }: Account,
    paths: readonly string[],
  ): Promise<{ aloneBytes: number; bytes: number }> {
    this.#task.checkAborted();
    const sum = { aloneBytes: 0, bytes: 0 };
    for (const [i, blocks] of (await native().measureFiles(diskUsage, paths)).entries()) {
      // It was released, or taken from the pool, after it was listed.
      if (isSystemError(blocks) && failedWith(blocks, 'ENOENT')) continue;
      if (isSystemError(blocks)) {
        await this.#failures.attempt(paths[i] ?? '', () => Promise.reject(blocks));
        continue;
      }
      sum.aloneBytes += blocks.aloneBytes;
      sum.bytes += blocks.aloneBytes + blocks.sharedBytes;
    }
    return sum;
  }
}

/** Images only: the pool's records are files. */
async function namesIn(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).filter((name) => !name.endsWith('.json'));
  } catch (error) {
    if (failedWith(error, 'ENOENT')) return [];
    throw error;
  }
}

async function filesystemOf(path: string): Promise<UsageReport['filesystem']> {
  if (await isMissing(path)) return undefined;
  const { bsize, blocks, bavail } = await statfs(path);
  return { sizeBytes: blocks * bsize, availableBytes: bavail * bsize };
}
