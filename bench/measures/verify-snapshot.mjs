// Reading a snapshot again, beside as many openssl processes as it has files, and there are cores.
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { run } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { newVmId } from '../peers/library.mjs';
import { atLeastTimesFaster } from '../targets.mjs';
import { makeSparseFile } from '../templates.mjs';
import { timeNs } from '../timing.mjs';

const MiB = 2 ** 20;

/** @type {import('./index.mjs').Measure} */
export const verifySnapshot = {
  name: 'verify-snapshot',
  title: 'verifySnapshot of a disk and a memory file, in the page cache',
  rateUnit: 'GiB/s',
  filesystems: ['xfs'],
  full: { rounds: 20, seconds: 40 },
  quick: { rounds: 3, seconds: 3 },
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [atLeastTimesFaster('library', 0.9, 'two openssl dgst')],
  async contestants(workspace) {
    const { RootfsRegistry } = workspace.library;
    const sizeBytes = (workspace.quick ? 128 : 512) * MiB;
    const folder = await workspace.newFolder('snapshots');
    const registry = new RootfsRegistry({
      templateDir: join(folder, 'templates'),
      clonesDir: join(folder, 'vms'),
    });
    workspace.onEnd(() => registry.close());
    const image = join(folder, 'image');
    const memory = join(folder, 'memory');
    for (const file of [image, memory]) await makeSparseFile(file, { sizeBytes, dataBytes: sizeBytes });
    await run('install', ['-D', image, join(folder, 'templates/random/rootfs.ext4')]);
    const vm = newVmId();
    await registry.cloneForVm(vm, 'random', { writable: true });
    const { path } = await registry.snapshotSlot(vm, 'snapshot', { with: [memory] });
    const amount = (2 * sizeBytes) / 2 ** 30;
    return {
      about: `2 × ${formatBytes(sizeBytes)} of random bytes`,
      contestants: [
        {
          name: 'library',
          does: 'verifySnapshot(name)',
          amount,
          sample: () => timeNs(() => registry.verifySnapshot('snapshot')),
        },
        {
          name: 'two openssl dgst',
          does: 'openssl dgst -sha256 of each file, both at once',
          amount,
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
