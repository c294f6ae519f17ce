// The table of all that is measured.
import { burst } from './burst.mjs';
import { cache } from './cache.mjs';
import { clone } from './clone.mjs';
import { coldPlaced, coldPublished, coldSize, coldSpace } from './cold.mjs';
import { copy, copyBlocks } from './copy.mjs';
import { eventLoop, eventLoopCopies } from './event-loop.mjs';
import { extents } from './extents.mjs';
import { firstClone } from './first-clone.mjs';
import { forks } from './fork.mjs';
import { grown } from './grown.mjs';
import { hash, hashMemory } from './hash.mjs';
import { holds } from './holds.mjs';
import { latencies } from './latency.mjs';
import { listing } from './listing.mjs';
import { manySlots } from './many-slots.mjs';
import { memory } from './memory.mjs';
import { pool } from './pool.mjs';
import { publish } from './publish.mjs';
import { publishContainer } from './publish-container.mjs';
import { pull, pullProcessors } from './pull.mjs';
import { realistic } from './realistic.mjs';
import { restoreFirst, restoreLater } from './restore.mjs';
import { stacks } from './stacks.mjs';
import { stacksNewProcess } from './stacks-new-process.mjs';
import { transferHolds } from './transfer-holds.mjs';
import { transferMemory } from './transfer-memory.mjs';
import { update, updateBytes, updateRequests } from './update.mjs';
import { verifySnapshot } from './verify-snapshot.mjs';

/**
 * @typedef {object} Effort
 * @property {number} rounds
 * @property {number} seconds no new round after these
 * @property {import('../filesystems.mjs').Filesystem[]} [on] all the measure's, if not given
 */

/**
 * @typedef {object} Measure
 * @property {string} name
 * @property {string} title
 * @property {import('../filesystems.mjs').Filesystem[]} filesystems
 * @property {import('../format.mjs').Unit} [unit] nanoseconds if not given
 * @property {string} [rateUnit] of what the contestants' `amount` gives, divided by the seconds
 * @property {Effort} full
 * @property {Effort | undefined} quick undefined: left out of a quick run
 * @property {import('../alternate.mjs').Turn} [turn] of a few samples, if not given
 * @property {number} [warmUps] many, if not given
 * @property {number} [cleanEvery] rounds between removals of what was made
 * @property {string} [together] those with the same word here share a process and file systems
 * @property {number} [leastRounds] 3, if not given; 1 in a quick run
 * @property {import('../targets.mjs').Target[]} targets
 * @property {(workspace: import('../workspace.mjs').Workspace) => Promise<{ about: string, contestants:
 * import('../alternate.mjs').Contestant[] }>} contestants
 */

/** @type {Measure[]} */
export const MEASURES = [
  clone,
  realistic,
  ...extents,
  grown,
  pool,
  burst,
  firstClone,
  coldPublished,
  coldPlaced,
  coldSize,
  coldSpace,
  hash,
  hashMemory,
  copy,
  copyBlocks,
  eventLoop,
  eventLoopCopies,
  holds,
  manySlots,
  stacks,
  stacksNewProcess,
  listing,
  ...forks,
  verifySnapshot,
  restoreFirst,
  restoreLater,
  publish,
  publishContainer,
  pull,
  pullProcessors,
  update,
  updateBytes,
  updateRequests,
  transferHolds,
  transferMemory,
  cache,
  ...latencies,
  memory,
];

/** @param {string[] | undefined} only */
export function selectMeasures(only) {
  if (only === undefined) return MEASURES;
  for (const name of only) {
    if (!MEASURES.some((measure) => measure.name.startsWith(name)))
      throw new Error(`there is no measure ${name}: see --list`);
  }
  return MEASURES.filter((measure) => only.some((name) => measure.name.startsWith(name)));
}
