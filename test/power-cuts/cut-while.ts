// The power goes at random moments while some calls are made, one after the other.
import { setTimeout as sleep } from 'node:timers/promises';
import type { RootfsConfig, RootfsRegistry } from '../../src/index.js';
import { Random } from '../fixtures/random.js';
import { type CutBench, use } from './cut-hosts.js';

export interface Calls {
  /** What is done, for the report. */
  readonly what: string;
  readonly count: number;
  /** How long all of them last at first, about. */
  readonly lastMs: number;
  readonly config?: Partial<RootfsConfig>;
  /** Tells when each has resolved. */
  readonly make: (registry: RootfsRegistry, onStep: () => void) => Promise<void>;
  /** Looks at what a cut has left when `done` of them had resolved. */
  readonly look: (done: number) => Promise<void>;
}

/** Cuts so many times, four times at most in one run of the calls, and looks at what each cut has left. */
export async function cutWhile({ disk, host }: CutBench, atLeast: number, calls: Calls): Promise<void> {
  const seed = Number(process.env.POWER_CUTS_SEED ?? Date.now() % 2 ** 31);
  const random = new Random(seed);
  let lasted = calls.lastMs;
  const cuts: { copy: string; done: number }[] = [];
  const run = async (registry: RootfsRegistry) => {
    let done = 0;
    const started = performance.now();
    const making = calls.make(registry, () => done++);
    for (let k = 0; k < 4; k++) {
      await sleep(random.below(Math.ceil(lasted / 3)));
      if (done === calls.count) break;
      cuts.push({ copy: disk.cut(), done });
    }
    await making;
    lasted = performance.now() - started;
  };
  while (cuts.length < atLeast) await disk.fresh(() => use(host, run, calls.config));
  for (const { copy, done } of cuts) {
    await disk
      .restarted(copy, () => calls.look(done))
      .catch((error) => {
        throw new Error(`cut from seed ${seed}, ${done} done: ${error.message}`, { cause: error });
      });
  }
  console.log(`${cuts.length} power cuts while ${calls.what}, seed ${seed}`);
}
