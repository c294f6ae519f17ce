// What every command gets: a registry on the configured folders, the output, and a signal that ends it.
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { type RootfsConfig, RootfsError, RootfsRegistry, type SlotDetails } from '../index.js';
import { slotNotFoundError } from '../slot/slot-errors.js';
import { parseVmId } from '../slot/vm-id.js';
import { type ConfigFlags, effectiveConfig } from './config-file.js';
import { Interruption } from './interruption.js';
import { Output } from './output.js';
import { ProgressLine, type SteppedProgress } from './progress.js';

/** The options that all commands take. */
interface GlobalFlags extends ConfigFlags {
  readonly json?: boolean;
  readonly verbose?: boolean;
}

export class Session {
  readonly registry: RootfsRegistry;
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly json: boolean;

  constructor(config: Partial<RootfsConfig>, flags: GlobalFlags, signal: AbortSignal) {
    this.registry = new RootfsRegistry(config);
    this.json = flags.json ?? false;
    this.output = new Output(this.json);
    this.signal = signal;
  }

  get config(): RootfsConfig {
    return this.registry.config;
  }

  /** For a command that prints nothing if the folder is missing: it may be misspelt, or not mounted. */
  tellIfMissing(folder: string): void {
    if (!existsSync(folder)) this.output.aside(`there is no folder ${folder}`);
  }

  /** A VM's clone. Rejects with `SLOT_NOT_FOUND` if it has none. */
  async slotOf(vm: string): Promise<SlotDetails> {
    const slot = await this.registry.slot(vm);
    if (slot === undefined) {
      const id = parseVmId(vm);
      throw slotNotFoundError(join(this.config.clonesDir, id.safe), id);
    }
    return slot;
  }

  /** Work that may take long, with a line on the terminal while it does. */
  async during<T>(
    label: string,
    work: (onProgress: (progress: SteppedProgress) => void) => Promise<T>,
  ): Promise<T> {
    const line = new ProgressLine(label, !this.json);
    try {
      return await work(line.update);
    } finally {
      line.stop();
    }
  }
}

/** What {@link Session.during} has come to: where only some of the work failed, there is a report as well. */
export interface Outcome<T> {
  readonly report: T;
  /** Throws what failed, when the report has been printed. */
  throwIfFailed(): void;
}

/** Rejects if nothing can be reported. */
export async function reported<T>(work: Promise<T>): Promise<Outcome<T>> {
  try {
    return { report: await work, throwIfFailed: () => {} };
  } catch (error) {
    if (!(error instanceof RootfsError) || error.report === undefined) throw error;
    return {
      report: error.report as T,
      throwIfFailed: () => {
        throw error;
      },
    };
  }
}

/** Runs a command's work with a session, which is over when it is. */
export async function inSession(command: Command, work: (session: Session) => Promise<void>): Promise<void> {
  const flags: GlobalFlags = command.optsWithGlobals();
  const interruption = new Interruption();
  try {
    const { signal } = interruption;
    const session = new Session(await effectiveConfig(flags, process.env, signal), flags, signal);
    const { templateDir, clonesDir } = session.config;
    const missing = [templateDir, clonesDir].filter((path) => !existsSync(path));
    warnOfRoot([templateDir, clonesDir]);
    const worked = await settled(work(session));
    // A misspelt folder would otherwise go unnoticed.
    if (worked.status === 'fulfilled')
      for (const path of missing) if (existsSync(path)) session.output.aside(`made the folder ${path}`);
    // Frees the space of released slots.
    const closed = await settled(session.during('giving space back', () => session.registry.close()));
    for (const outcome of [worked, closed]) if (outcome.status === 'rejected') throw outcome.reason;
  } finally {
    interruption.dispose();
  }
}

/** What root makes in another user's folder is root's, and that user's own process cannot change it. */
function warnOfRoot(folders: readonly string[]): void {
  if (process.geteuid?.() !== 0) return;
  for (const path of folders) {
    const uid = ownerOf(path);
    if (uid === undefined || uid === 0) continue;
    process.emitWarning(
      `${path} belongs to user ${uid}, and what root makes in it is root's: that user's own program may not be able ` +
        `to change or remove it. Run this as that user: setpriv --reuid ${uid}, or sudo -u '#${uid}'`,
      { code: 'MICROVM_ROOTFS_ROOT' },
    );
    return;
  }
}

/** Undefined for one that is missing, or cannot be looked at: a command that needs it says why. */
function ownerOf(path: string): number | undefined {
  try {
    return statSync(path).uid;
  } catch {
    return undefined;
  }
}

async function settled(work: Promise<void>): Promise<PromiseSettledResult<void>> {
  const [outcome] = await Promise.allSettled([work]);
  return outcome;
}
