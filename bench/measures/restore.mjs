// Starting VMs from a snapshot: the first reads it, the others do not.
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { run } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { libraryClone, newVmId, releaseAll } from '../peers/library.mjs';
import { atMostTimes } from '../targets.mjs';
import { makeSparseFile } from '../templates.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const MiB = 2 ** 20;

/** @type {import('./index.mjs').Measure} */
export const restoreFirst = {
  name: 'restore-first',
  title: 'first restore of a snapshot, in the page cache',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 10, seconds: 40 },
  quick: { rounds: 2, seconds: 3, on: ['xfs'] },
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [atMostTimes('library', 1.05, 'two openssl dgst')],
  async contestants(workspace) {
    const { registry, path, about } = await snapshotIn(workspace);
    const { snapshotsDir } = registry.config;
    let copies = 0;
    return {
      about,
      contestants: [
        {
          name: 'library',
          does: 'restoreSnapshot of a copy that was never read',
          async sample() {
            const name = `copy-${copies++}`;
            await cp(path, join(snapshotsDir, name), { recursive: true });
            await workspace.settle();
            return timeNs(() => registry.restoreSnapshot(name, newVmId()));
          },
        },
        {
          name: 'two openssl dgst',
          does: 'openssl dgst -sha256 of each file, both at once',
          sample: () =>
            timeNs(() =>
              Promise.all(
                ['rootfs.ext4', 'memory'].map((file) =>
                  run('openssl', ['dgst', '-sha256', join(path, file)]),
                ),
              ),
            ),
        },
      ],
    };
  },
};

/** @type {import('./index.mjs').Measure} */
export const restoreLater = {
  name: 'restore-later',
  title: 'later restore of a snapshot',
  filesystems: ['xfs', 'btrfs'],
  full: { rounds: 200, seconds: 15 },
  quick: { rounds: 20, seconds: 1, on: ['xfs'] },
  targets: [atMostTimes('library', 1.3, 'library, warm clone')],
  async contestants(workspace) {
    const { registry, template, about } = await snapshotIn(workspace);
    await registry.restoreSnapshot('snapshot', newVmId());
    /** @type {string[]} */
    const made = [];
    return {
      about,
      contestants: [
        {
          name: 'library',
          does: 'restoreSnapshot(name, id)',
          sample() {
            const id = newVmId();
            made.push(id);
            return timeNs(() => registry.restoreSnapshot('snapshot', id));
          },
          clean: () => releaseAll(registry, made.splice(0)),
        },
        await libraryClone(workspace, template, { name: 'library, warm clone', registry }),
      ],
    };
  },
};

/** @param {Workspace} workspace */
async function snapshotIn(workspace) {
  const { RootfsRegistry } = workspace.library;
  const sizeBytes = (workspace.quick ? 256 : 2048) * MiB;
  const dataBytes = (workspace.quick ? 32 : 100) * MiB;
  const memoryBytes = (workspace.quick ? 64 : 512) * MiB;
  const folder = await workspace.newFolder('restore');
  const registry = new RootfsRegistry({
    templateDir: join(folder, 'templates'),
    clonesDir: join(folder, 'vms'),
    snapshotsDir: join(folder, 'snapshots'),
  });
  workspace.onEnd(() => registry.close());
  const [image, memory] = [join(folder, 'image'), join(folder, 'memory')];
  await makeSparseFile(image, { sizeBytes, dataBytes });
  await makeSparseFile(memory, { sizeBytes: memoryBytes, dataBytes: memoryBytes });
  const path = join(folder, 'templates/random/rootfs.ext4');
  await run('install', ['-d', join(folder, 'templates/random')]);
  await run('cp', ['--reflink=always', image, path]);
  await run('sync', [path]);
  const vm = newVmId();
  await registry.cloneForVm(vm, 'random', { writable: true });
  const snapshot = await registry.snapshotSlot(vm, 'snapshot', { with: [memory] });
  /** @type {import('../workspace.mjs').Template} */
  const template = {
    stack: /** @type {any} */ ('random'),
    path,
    sizeBytes,
    blocksBytes: 0,
    about: '',
  };
  const about =
    `a disk of ${formatBytes(sizeBytes)} with ${formatBytes(dataBytes)} of data, and ` +
    `${formatBytes(memoryBytes)} of memory`;
  return { registry, path: snapshot.path, template, about };
}
