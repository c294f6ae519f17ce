// Measures what slots, templates, partial pulls and our own images hold on disk. Uses FIEMAP, and counts blocks shared
// by several files once.

import { statfs } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type NativeDiskUsage, native } from '../addon/native.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { Template } from '../catalog/template.js';
import { parseReadyName } from '../clone/pool-files.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { namesIn } from '../folder/names-in.js';
import { SCATTERED_EXTENTS } from '../image/extents.js';
import { partsOf } from '../sealed/seal-record.js';
import type { SlotInfo } from '../slot/slot-info.js';
import { listSlots } from '../slot/slot-list.js';
import { CLONE_ROOTFS_FILE } from '../slot/stamps.js';
import { asRootfsError, failedWith, isSystemError } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { isMissing } from '../system/is-missing.js';
import { inTurn } from '../system/long-work.js';
import { mapInSlices } from '../system/map-in-slices.js';
import { Pause } from '../system/pause.js';
import { sortedBy } from '../system/sorted-names.js';
import { POOL_FOLDER, SEALED_FOLDER } from '../system/state-folder.js';
import { Task } from '../system/task.js';

// Files per native call: a few milliseconds of work.
const BATCH = 64;

const SCATTERED_LIMIT = 100;

// Accounts that are made or closed at once: well below a millisecond of work.
const SLICE = 256;

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

export interface ScatteredSlot {
  readonly vmId: string;
  readonly extents: number;
}

export interface UsageReport {
  /** Sorted by name. */
  readonly stacks: readonly StackUsage[];
  readonly slots: number;
  /** The total over all stacks and partial pulls. Blocks shared by several of them are counted once. */
  readonly totalBytes: number;
  /** Bytes on disk of pulls that run or were interrupted, of stacks and of snapshots. */
  readonly partialPullBytes: number;
  /**
   * The slots whose images lie in more than 1,000 extents, most first, 100 at most. A fork, snapshot or restore of such
   * a disk takes about 10 µs for each extent. The guide says how to copy it into one piece when its VM stops next.
   */
  readonly scattered: readonly ScatteredSlot[];
  /** The filesystem of the clones folder. Undefined if the folder does not exist. */
  readonly filesystem: { readonly sizeBytes: number; readonly availableBytes: number } | undefined;
}

interface Account {
  readonly diskUsage: NativeDiskUsage;
  /** Slots that have not been measured yet. */
  readonly unmeasured: SlotInfo[];
  slots: number;
  templateBytes: number;
  aloneBytes: number;
}

export async function usage(
  folder: ManagedFolder,
  stacks: StacksByDigest,
  templates: ReadonlyMap<string, Template | undefined>,
  partialPulls: readonly string[],
  signal: AbortSignal | undefined,
): Promise<UsageReport> {
  const task = new Task(`measuring ${folder.path}`, signal);
  const accounts = new Accounts(task);
  try {
    await accounts.addTemplates(templates);
    await accounts.addOurImages(folder, stacks);
    await accounts.addPartialPulls(partialPulls);
    await accounts.addSlots(folder.path, listSlots(folder, stacks, signal));
    const report = { ...(await accounts.report()), filesystem: await filesystemOf(folder.path) };
    accounts.failures.throwIfAny(report);
    return report;
  } catch (error) {
    throw asRootfsError(task.what, error);
  } finally {
    await accounts.dispose();
  }
}

/** One account per stack, and the total. */
class Accounts {
  readonly #task: Task;
  readonly failures: Failures;
  readonly #whole = native().newDiskUsage();
  readonly #scattered: ScatteredSlot[] = [];
  readonly #accounts = new Map<string | undefined, Account>();
  #partialPullBytes = 0;

  constructor(task: Task) {
    this.#task = task;
    this.failures = new Failures(task);
  }

  async addTemplates(templates: ReadonlyMap<string, Template | undefined>): Promise<void> {
    let made = 0;
    for (const [stack, template] of templates) {
      const account = this.#of(stack);
      if (++made % SLICE === 0) await nextTurn();
      if (template !== undefined)
        account.templateBytes = (await this.#addBlocks(account, [template.path])).bytes;
    }
  }

  /** Sealed images and ready slots. */
  async addOurImages({ statePath }: ManagedFolder, stacks: StacksByDigest): Promise<void> {
    const places = [
      [SEALED_FOLDER, partsOf],
      [POOL_FOLDER, parseReadyName],
    ] as const;
    for (const [place, parse] of places) {
      for (const name of await namesIn(`${statePath}/${place}`)) {
        const image = parse(name);
        // The pool has records beside them, and anybody may have put something there.
        if (image === undefined) continue;
        const account = this.#of(await stacks.firstWith(image.sha256));
        await this.#addBlocks(account, [`${statePath}/${place}/${name}/${CLONE_ROOTFS_FILE}`]);
      }
    }
  }

  async addPartialPulls(paths: readonly string[]): Promise<void> {
    if (paths.length > 0)
      this.#partialPullBytes = (await this.#addBlocks({ diskUsage: this.#whole }, paths)).bytes;
  }

  async addSlots(path: string, slots: AsyncIterable<SlotInfo>): Promise<void> {
    await this.failures.attempt(path, async () => {
      for await (const slot of slots) {
        const account = this.#of(slot.stack);
        account.slots++;
        if (account.unmeasured.push(slot) === BATCH) await this.#flush(account);
      }
    });
    const pause = new Pause();
    for (const account of this.#accounts.values()) {
      if (account.unmeasured.length > 0) await this.#flush(account);
      else if (pause.isDue) await pause.take();
    }
  }

  async report(): Promise<Omit<UsageReport, 'filesystem'>> {
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
    const totalBytes = await native().diskUsageTotal(this.#whole);
    return {
      stacks: await sortedStacks(stacks),
      slots: total,
      totalBytes,
      partialPullBytes: this.#partialPullBytes,
      scattered: this.#scattered,
    };
  }

  async dispose(): Promise<void> {
    await mapInSlices([...this.#accounts.values()], ({ diskUsage }) => native().dispose(diskUsage), SLICE);
    native().dispose(this.#whole);
  }

  #of(stack: string | undefined): Account {
    const there = this.#accounts.get(stack);
    if (there !== undefined) return there;
    const diskUsage = native().newDiskUsage(this.#whole);
    const account = { diskUsage, unmeasured: [], slots: 0, templateBytes: 0, aloneBytes: 0 };
    this.#accounts.set(stack, account);
    return account;
  }

  async #flush(account: Account): Promise<void> {
    const slots = account.unmeasured.splice(0);
    const paths = slots.map(({ path }) => path);
    const { aloneBytes, extents } = await this.#addBlocks(account, paths);
    account.aloneBytes += aloneBytes;
    slots.forEach(({ vmId }, i) => {
      const count = extents[i] ?? 0;
      if (count > SCATTERED_EXTENTS) this.#scattered.push({ vmId, extents: count });
    });
    this.#scattered.sort((a, b) => b.extents - a.extents).splice(SCATTERED_LIMIT);
  }

  async #addBlocks(
    { diskUsage }: Pick<Account, 'diskUsage'>,
    paths: readonly string[],
  ): Promise<{ aloneBytes: number; bytes: number; extents: (number | undefined)[] }> {
    const sum = { aloneBytes: 0, bytes: 0, extents: [] as (number | undefined)[] };
    const measured = await inTurn(this.#task, () => native().measureFiles(diskUsage, paths));
    for (const [i, blocks] of measured.entries()) {
      // It was released, or taken from the pool, after it was listed.
      if (isSystemError(blocks) && failedWith(blocks, 'ENOENT')) continue;
      if (isSystemError(blocks)) {
        this.failures.add(paths[i] ?? '', blocks);
        continue;
      }
      sum.aloneBytes += blocks.aloneBytes;
      sum.bytes += blocks.aloneBytes + blocks.sharedBytes;
      sum.extents[i] = blocks.extents;
    }
    return sum;
  }
}

/** By the bytes of their names. What is of no known stack comes first. */
function sortedStacks(stacks: readonly StackUsage[]): Promise<StackUsage[]> {
  return sortedBy(stacks, ({ stack }) =>
    stack === undefined ? '' : `/${Buffer.from(stack).toString('latin1')}`,
  );
}

async function filesystemOf(path: string): Promise<UsageReport['filesystem']> {
  if (await isMissing(path)) return undefined;
  const { bsize, blocks, bavail } = await statfs(path);
  return { sizeBytes: blocks * bsize, availableBytes: bavail * bsize };
}
