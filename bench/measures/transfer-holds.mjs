// How long a push and a pull hold the event loop.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { formatNs } from '../format.mjs';
import { longestTurnNs } from '../longest-turn.mjs';
import { atMost } from '../targets.mjs';

const LIMIT_NS = 10e6;
const WAYS = ['pull, cold', 'pull, update', 'push'];

/** @type {import('./index.mjs').Measure} */
export const transferHolds = {
  name: 'transfer-holds',
  together: 'fleet',
  title: 'longest turn of the event loop in a push or pull, in processor time',
  filesystems: ['xfs'],
  full: { rounds: 3, seconds: 60 },
  quick: { rounds: 1, seconds: 1 },
  turn: ONE_SAMPLE,
  warmUps: 0,
  targets: WAYS.map((way) => atMost(way, LIMIT_NS, formatNs)),
  async contestants(workspace) {
    const fleet = await fleetOf(workspace);
    const { reference: cold, about } = await fleet.version('cold');
    const { reference: anew } = await fleet.version('anew');
    const host = fleet.host('held');
    workspace.onEnd(() => host.end());
    const { registry, folder } = host;
    let pushes = 0;
    return {
      about: `a template of ${about}`,
      contestants: [
        {
          name: 'pull, cold',
          does: 'pullStack into an empty catalog',
          async sample() {
            const { registry: empty, end } = fleet.host();
            const ns = await longestTurnNs(() => empty.pullStack(cold));
            await end();
            return ns;
          },
        },
        {
          name: 'pull, update',
          does: 'pullStack of the upgrade, made anew, where the template before is',
          async sample() {
            await registry.pullStack(cold, { replace: true });
            return longestTurnNs(() => registry.pullStack(anew, { replace: true }));
          },
        },
        {
          name: 'push',
          does: 'pushStack of an image whose chunks are not known, into an empty repository',
          async sample() {
            await registry.pullStack(cold, { replace: true });
            await rm(join(folder, 'templates/.microvm-rootfs/chunks'), { recursive: true });
            const reference = `${fleet.registry.host}/bench/held-${pushes++}:1`;
            return longestTurnNs(() => registry.pushStack('system', reference));
          },
        },
      ],
    };
  },
};
