// What slots, templates and our own images hold on disk: by FIEMAP, blocks that several files share counted once.
import { readdir, statfs } from 'node:fs/promises';
import type { ClonesFolder } from './clones-folder.js';
import { failedWith, isSystemError, rootfsError } from './errors.js';
import { isMissing } from './is-missing.js';
import { checkAborted } from './long-work.js';
import { type NativeTally, native } from './native.js';
import { listSlots } from './slot-list.js';
import type { StackNames } from './stack-names.js';
import { CLONE_ROOTFS_FILE } from './stamps.js';
import type { Template } from './templates.js';

// Files in one trip: some milliseconds of work.
const BATCH = 64;

export interface StackUsage {
  /** Undefined for slots and images whose stack is not known. */
  readonly stack: string | undefined;
  readonly slots: number;
  /** Bytes on disk of its template. */
  readonly templateBytes: number;
  /** Bytes on disk that its slots alone hold: what releasing all of them gives back at least. */
  readonly aloneBytes: number;
  /** Bytes on disk of template, sealed images, ready slots and slots, those that they share counted once: what the stack costs. */
  readonly totalBytes: number;
}

export interface UsageReport {
  /** Sorted by name. */
  readonly stacks: readonly StackUsage[];
  readonly slots: number;
  /** All of them, blocks that several stacks share counted once. */
  readonly totalBytes: number;
  /** Of the filesystem with the clones folder; undefined if there is no such folder. */
  readonly filesystem: { readonly sizeBytes: number; readonly availableBytes: number } | undefined;
}

interface Account {
  readonly tally: NativeTally;
  readonly paths: string[];
  slots: number;
  templateBytes: number;
  aloneBytes: number;
}

export async function usage(
  folder: ClonesFolder,
  names: StackNames,
  stacks: ReadonlyMap<string, Template | undefined>,
  signal: AbortSignal | undefined,
): Promise<UsageReport> {
  const what = `measuring ${folder.path}`;
  const whole = native().newTally();
  const accounts = new Map<string | undefined, Account>();
  const accountOf = (stack: string | undefined): Account => {
    const there = accounts.get(stack);
    if (there !== undefined) return there;
    const fresh = { tally: native().newTally(whole), paths: [], slots: 0, templateBytes: 0, aloneBytes: 0 };
    accounts.set(stack, fresh);
    return fresh;
  };
  const tally = async (account: Account, paths: readonly string[]) => {
    checkAborted(what, signal);
    const sum = { alone: 0, all: 0 };
    for (const held of await native().tallyFiles(account.tally, paths)) {
      // Released, or taken from the pool, since it was listed.
      if (isSystemError(held) && failedWith(held, 'ENOENT')) continue;
      if (isSystemError(held)) throw held;
      sum.alone += held.aloneBytes;
      sum.all += held.aloneBytes + held.sharedBytes;
    }
    return sum;
  };
  try {
    for (const [stack, template] of stacks) {
      const account = accountOf(stack);
      if (template !== undefined) account.templateBytes = (await tally(account, [template.path])).all;
    }
    for (const place of ['sealed', 'pool']) {
      for (const name of await namesIn(`${folder.statePath}/${place}`)) {
        const sha256 = name.slice(0, 64);
        const account = accountOf(await names.firstWith(sha256));
        await tally(account, [`${folder.statePath}/${place}/${name}/${CLONE_ROOTFS_FILE}`]);
      }
    }
    let slots = 0;
    const flush = async (account: Account) => {
      account.aloneBytes += (await tally(account, account.paths.splice(0))).alone;
    };
    for await (const { stack, path } of listSlots(folder, names, signal)) {
      const account = accountOf(stack);
      slots++;
      account.slots++;
      if (account.paths.push(path) === BATCH) await flush(account);
    }
    const reports: StackUsage[] = [];
    for (const [stack, account] of accounts) {
      await flush(account);
      const { slots, templateBytes, aloneBytes } = account;
      const totalBytes = await native().tallyTotal(account.tally);
      reports.push({ stack, slots, templateBytes, aloneBytes, totalBytes });
    }
    reports.sort((a, b) => Buffer.compare(Buffer.from(a.stack ?? ''), Buffer.from(b.stack ?? '')));
    return {
      stacks: reports,
      slots,
      totalBytes: await native().tallyTotal(whole),
      filesystem: await filesystemOf(folder.path),
    };
  } catch (error) {
    throw rootfsError(what, error);
  } finally {
    for (const { tally } of accounts.values()) native().dispose(tally);
    native().dispose(whole);
  }
}

/** Of images; the pool's records are files. */
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
