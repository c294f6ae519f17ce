// How long the event loop is kept waiting while the library works: a server beside it must stay quick.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { ONE_SAMPLE } from '../alternate.mjs';
import { formatNs } from '../format.mjs';
import { newVmId, releaseAll } from '../peers/library.mjs';
import { atMost } from '../targets.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const RESOLUTION_MS = 1;
const LIMIT_NS = 5e6;
const GROWN_BYTES = 8 * 2 ** 30;

/** @type {import('./index.mjs').Measure} */
export const eventLoop = measureOf(
  'event-loop',
  'xfs',
  ['clones', 'grown clones', 'hashing'],
  async (workspace) => {
    const oneExtent = await workspace.template('one-extent');
    const realistic = await workspace.template('realistic');
    return [
      load(workspace, 'clones', 'cloneForVm, 64 at a time, without end', 64, (id) =>
        workspace.registry.cloneForVm(id, oneExtent.stack, { writable: true }),
      ),
      load(workspace, 'grown clones', 'cloneForVm with sizeBytes, 8 at a time', 8, (id) =>
        workspace.registry.cloneForVm(id, realistic.stack, { writable: true, sizeBytes: GROWN_BYTES }),
      ),
      load(workspace, 'hashing', 'hashFile of a 2 GiB file, 4 at a time', 4, async (_id, signal) => {
        await workspace.library.hashFile(realistic.path, { signal });
      }),
    ];
  },
);

/** @type {import('./index.mjs').Measure} */
export const eventLoopCopies = measureOf('event-loop-copies', 'ext4', ['copies'], async (workspace) => {
  const sparse = await workspace.template('sparse');
  return [
    load(workspace, 'copies', 'cloneForVm by copy of a sparse template, 4 at a time', 4, (id, signal) =>
      workspace.registry.cloneForVm(id, sparse.stack, { writable: true, signal }),
    ),
  ];
});

/**
 * @param {string} name
 * @param {import('../filesystems.mjs').Filesystem} filesystem
 * @param {string[]} loads
 * @param {(workspace: Workspace) => Promise<Contestant[]>} contestants
 * @returns {import('./index.mjs').Measure}
 */
function measureOf(name, filesystem, loads, contestants) {
  return {
    name,
    title: 'event-loop delay, p99 of each second',
    filesystems: [filesystem],
    full: { rounds: 5, seconds: 30 },
    quick: { rounds: 1, seconds: 1 },
    turn: ONE_SAMPLE,
    warmUps: 0,
    cleanEvery: 1,
    targets: loads.map((way) => atMost(way, LIMIT_NS, formatNs)),
    async contestants(workspace) {
      const idle = {
        name: 'nothing',
        does: 'an idle process',
        sample: () => delayDuring(workspace, async () => {}, 1),
      };
      return { about: '', contestants: [idle, ...(await contestants(workspace))] };
    },
  };
}

/**
 * @param {Workspace} workspace
 * @param {string} name
 * @param {string} does
 * @param {number} atOnce
 * @param {(id: string, signal: AbortSignal) => Promise<unknown>} work
 * @returns {Contestant}
 */
function load(workspace, name, does, atOnce, work) {
  /** @type {string[]} */
  let ids = [];
  return {
    name,
    does,
    sample: () =>
      delayDuring(
        workspace,
        async (signal) => {
          const id = newVmId();
          ids.push(id);
          await work(id, signal);
        },
        atOnce,
      ),
    async clean() {
      await releaseAll(workspace.registry, ids);
      ids = [];
      await workspace.settle();
    },
  };
}

/**
 * @param {Workspace} workspace
 * @param {(signal: AbortSignal) => Promise<unknown>} work repeated until the time is over
 * @param {number} atOnce
 * @returns {Promise<number>} nanoseconds beyond the timer's own interval
 */
async function delayDuring({ quick }, work, atOnce) {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  const over = new AbortController();
  const worker = async () => {
    while (!over.signal.aborted) {
      try {
        await Promise.all([work(over.signal), sleep(0)]);
      } catch (error) {
        if (!over.signal.aborted) throw error;
      }
    }
  };
  histogram.enable();
  const workers = Promise.all(Array.from({ length: atOnce }, worker));
  await Promise.race([sleep(quick ? 500 : 1000), workers]);
  histogram.disable();
  over.abort();
  await workers;
  return Math.max(0, histogram.percentile(99) - RESOLUTION_MS * 1e6);
}
