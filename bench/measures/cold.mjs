// What is done for the first time: of a stack that was just published, of a template placed by hand, of a size.
// Each sample has a template, or a size, of its own; making it is not timed.
import { mkdir, open, statfs, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { run } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { newVmId } from '../peers/library.mjs';
import { atMostTimes } from '../targets.mjs';
import { makeRealisticImage } from '../templates.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const FILESYSTEMS = /** @type {import('../filesystems.mjs').Filesystem[]} */ (['xfs', 'btrfs']);

const effort = /** @type {const} */ ({
  filesystems: FILESYSTEMS,
  full: { rounds: 15, seconds: 30 },
  quick: { rounds: 3, seconds: 5, on: ['xfs'] },
  turn: ONE_SAMPLE,
  warmUps: 10,
  leastRounds: 10,
});

/** @type {import('./index.mjs').Measure} */
export const coldPublished = /** @type {any} */ ({
  ...effort,
  name: 'cold-published',
  title: 'first clone of a stack that was just published',
  targets: [atMostTimes('library', 1, 'cp')],
  async contestants(/** @type {Workspace} */ workspace) {
    const host = await ColdHost.make(workspace, 'published');
    const published = async () =>
      (await host.registry.publishStack(await host.next(), host.image)).templatePath;
    return {
      about: `${formatBytes(host.sizeBytes)}, ${formatBytes(host.dataBytes)} of data`,
      contestants: [
        {
          name: 'library',
          does: 'cloneForVm(id, stack, { writable }), once, after publishStack in the same process',
          async sample() {
            await published();
            return timeNs(() => host.registry.cloneForVm(newVmId(), host.stack, { writable: true }));
          },
        },
        {
          name: 'cp',
          does: 'child_process.spawn of cp --reflink=always, and its exit; of a template that was published likewise',
          async sample() {
            const template = await published();
            return timeNs(() => run('cp', ['--reflink=always', template, host.newPath()]));
          },
        },
      ],
    };
  },
});

/** @type {import('./index.mjs').Measure} */
export const coldPlaced = /** @type {any} */ ({
  ...effort,
  name: 'cold-placed',
  title: 'first clone of a template that was placed by hand',
  targets: [atMostTimes('library', 1.05, 'openssl dgst, cp')],
  async contestants(/** @type {Workspace} */ workspace) {
    const host = await ColdHost.make(workspace, 'placed');
    return {
      about: `${formatBytes(host.sizeBytes)}, ${formatBytes(host.dataBytes)} of data, in the page cache`,
      contestants: [
        {
          name: 'library',
          does: 'cloneForVm(id, stack, { writable }), once',
          async sample() {
            await host.place();
            return timeNs(() => host.registry.cloneForVm(newVmId(), host.stack, { writable: true }));
          },
        },
        {
          name: 'openssl dgst, cp',
          does: 'child_process.spawn of openssl dgst -sha256 TEMPLATE, then of cp --reflink=always',
          async sample() {
            const template = await host.place();
            return timeNs(async () => {
              await run('openssl', ['dgst', '-sha256', template]);
              await run('cp', ['--reflink=always', template, host.newPath()]);
            });
          },
        },
      ],
    };
  },
});

/** @type {import('./index.mjs').Measure} */
export const coldSize = /** @type {any} */ ({
  ...effort,
  name: 'cold-size',
  title: 'first clone of a size: 1 GiB grown to 8 GiB',
  targets: [atMostTimes('library', 2, 'cp, truncate, resize2fs')],
  async contestants(/** @type {Workspace} */ workspace) {
    const host = await ColdHost.make(workspace, 'size', GiB);
    const template = await host.place();
    await host.registry.cloneForVm(newVmId(), host.stack, { writable: true });
    let sizeBytes = 8 * GiB;
    const grow = async (/** @type {string} */ path) => {
      await run('cp', ['--reflink=always', template, path]);
      await truncate(path, sizeBytes);
      await run('resize2fs', ['-f', path]);
    };
    const way = (
      /** @type {string} */ name,
      /** @type {string} */ does,
      /** @type {() => Promise<unknown>} */ work,
    ) => ({
      name,
      does,
      sample() {
        sizeBytes += MiB;
        return timeNs(work);
      },
    });
    return {
      about: `${formatBytes(host.dataBytes)} of data`,
      contestants: [
        way('library', 'cloneForVmWithSize, once for each size; e2fsck -fn included', () =>
          host.registry.cloneForVmWithSize(newVmId(), host.stack, sizeBytes, { writable: true }),
        ),
        way(
          'cp, truncate, resize2fs',
          'cp --reflink=always, truncate, resize2fs -f: each spawned but truncate',
          () => grow(host.newPath()),
        ),
        way('the same, e2fsck', 'the same, then e2fsck -fn', async () => {
          const path = host.newPath();
          await grow(path);
          await run('e2fsck', ['-fn', path]);
        }),
      ],
    };
  },
});

/** @type {import('./index.mjs').Measure} */
export const coldSpace = /** @type {any} */ ({
  ...effort,
  name: 'cold-space',
  title: 'space of one clone and one grown clone',
  unit: 'bytes',
  full: { rounds: 3, seconds: 60 },
  quick: { rounds: 1, seconds: 1, on: ['xfs'] },
  warmUps: 0,
  targets: [
    {
      text: 'library ≤ cp and resize2fs + 8 MiB',
      on: undefined,
      value: (/** @type {(name: string) => number | undefined} */ p50) => {
        const [ours, naive] = [p50('library'), p50('cp, resize2fs')];
        return ours === undefined || naive === undefined ? undefined : ours - naive;
      },
      limit: 8 * MiB,
      bound: 'at most',
      show: (/** @type {number} */ value) => `${formatBytes(value)} more`,
    },
  ],
  async contestants(/** @type {Workspace} */ workspace) {
    const host = await ColdHost.make(workspace, 'space', GiB);
    const taken = async (/** @type {(template: string) => Promise<unknown>} */ work) => {
      const template = await host.place();
      const before = await freeBytes(workspace);
      await work(template);
      await host.registry.drain();
      return before - (await freeBytes(workspace));
    };
    return {
      about: `a template of ${formatBytes(host.sizeBytes)}, ${formatBytes(host.dataBytes)} of data`,
      contestants: [
        {
          name: 'library',
          does: 'cloneForVm, then cloneForVmWithSize to 8 GiB; with their sealed images',
          sample: () =>
            taken(async () => {
              await host.registry.cloneForVm(newVmId(), host.stack, { writable: true });
              await host.registry.cloneForVmWithSize(newVmId(), host.stack, 8 * GiB, { writable: true });
            }),
        },
        {
          name: 'cp, resize2fs',
          does: 'two cp --reflink=always, truncate to 8 GiB, resize2fs',
          sample: () =>
            taken(async (template) => {
              await run('cp', ['--reflink=always', template, host.newPath()]);
              const grown = host.newPath();
              await run('cp', ['--reflink=always', template, grown]);
              await truncate(grown, 8 * GiB);
              await run('resize2fs', ['-f', grown]);
            }),
        },
      ],
    };
  },
});

/** @param {Workspace} workspace */
async function freeBytes(workspace) {
  await workspace.settle();
  const { bfree, bsize } = await statfs(workspace.path);
  return bfree * bsize;
}

/** A catalog to which ever new images of the same kind come. */
class ColdHost {
  #folder;
  #count = 0;

  /**
   * @param {string} folder
   * @param {any} registry
   * @param {{ sizeBytes: number, dataBytes: number }} size
   */
  constructor(folder, registry, { sizeBytes, dataBytes }) {
    this.#folder = folder;
    this.registry = registry;
    this.sizeBytes = sizeBytes;
    this.dataBytes = dataBytes;
    this.image = join(folder, 'image');
  }

  /**
   * @param {Workspace} workspace
   * @param {string} purpose
   */
  static async make(workspace, purpose, sizeBytes = 512 * MiB) {
    const folder = await workspace.newFolder(`cold-${purpose}`);
    const { RootfsRegistry } = workspace.library;
    const registry = new RootfsRegistry({
      templateDir: join(folder, 'templates'),
      clonesDir: join(folder, 'vms'),
    });
    workspace.onEnd(() => registry.close());
    const dataBytes = (workspace.quick ? 32 : 200) * MiB;
    const host = new ColdHost(folder, registry, { sizeBytes, dataBytes });
    await mkdir(join(folder, 'copies'));
    await mkdir(registry.config.clonesDir);
    await makeRealisticImage(host.image, host, workspace.scratch);
    return host;
  }

  get stack() {
    return `stack-${this.#count}`;
  }

  newPath() {
    return join(this.#folder, 'copies', newVmId());
  }

  /** Gives the image another digest by a mark in its boot block, and names a stack for it. */
  async next() {
    this.#count++;
    const file = await open(this.image, 'r+');
    // That block belongs to no file.
    await file.write(Buffer.from(`image ${this.#count} of ${process.pid}`), 0, undefined, 0);
    await file.sync();
    await file.close();
    return this.stack;
  }

  /** A new template, flushed and read. */
  async place() {
    const stack = await this.next();
    const folder = join(this.registry.config.templateDir, stack);
    await mkdir(folder, { recursive: true });
    const path = join(folder, 'rootfs.ext4');
    await run('cp', ['--reflink=always', this.image, path]);
    await run('sync', [path]);
    await run('cat', [path]);
    return path;
  }
}
