// What a pull and a push take of memory, whatever the size.
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ONCE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { bytesOf, copyPackages, upTo } from '../fleet/packages.mjs';
import { formatBytes } from '../format.mjs';
import { atMost } from '../targets.mjs';

const MiB = 2 ** 20;
const LIMIT = 64 * MiB;
const CHILD = new URL('../children/transfer-memory.mjs', import.meta.url).pathname;
const WAYS = ['pull, small', 'pull', 'push, small', 'push'];

/** @type {import('./index.mjs').Measure} */
export const transferMemory = {
  name: 'transfer-memory',
  together: 'fleet',
  title: 'memory that a push or pull takes: growth of the peak in a process of its own',
  filesystems: ['xfs'],
  unit: 'bytes',
  ...ONCE,
  targets: WAYS.map((way) => atMost(way, LIMIT, formatBytes)),
  async contestants(workspace) {
    const fleet = await fleetOf(workspace);
    const { host } = fleet.registry;
    const { folder, registry } = fleet.host('memory');
    const large = await fleet.version('cold');
    const small = { reference: `${host}/bench/memory:1`, bytes: (workspace.quick ? 8 : 64) * MiB };
    const tree = join(folder, 'tree');
    await mkdir(tree, { recursive: true });
    await copyPackages(upTo(small.bytes, fleet.packages), tree);
    await registry.publishStack('memory', tree);
    await registry.pushStack('memory', small.reference);
    await registry.pullStack(large.reference);
    await registry.close();

    let samples = 0;
    const child = async (/** @type {string[]} */ ...args) =>
      Number(await output(process.execPath, [CHILD, workspace.libraryFolder, ...args]));
    const pull = (/** @type {string} */ reference) => async () => {
      const place = join(folder, `host-${samples++}`);
      const bytes = await child('pull', host, place, reference);
      await rm(place, { recursive: true });
      return bytes;
    };
    const push = (/** @type {string} */ stack) => async () => {
      await rm(join(folder, 'templates/.microvm-rootfs/chunks'), { recursive: true, force: true });
      return child('push', host, folder, stack, `${host}/bench/memory-${samples++}:1`);
    };
    const sizes = { small: formatBytes(small.bytes), large: formatBytes(bytesOf(fleet.packages)) };
    return {
      about: `a template of ${large.about}, and a small one with ${sizes.small}; the programs beside it not counted`,
      contestants: [
        { name: 'pull, small', does: `pullStack, ${sizes.small} of files`, sample: pull(small.reference) },
        { name: 'pull', does: `pullStack, ${sizes.large} of files`, sample: pull(large.reference) },
        { name: 'push, small', does: `pushStack, ${sizes.small} of files`, sample: push('memory') },
        { name: 'push', does: `pushStack, ${sizes.large} of files`, sample: push('system') },
      ],
    };
  },
};
