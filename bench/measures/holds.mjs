// How long a long operation holds the event loop.
import { mkdirSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { formatNs } from '../format.mjs';
import { longestTurnNs } from '../longest-turn.mjs';
import { newVmId, releaseAll } from '../peers/library.mjs';
import { atMost } from '../targets.mjs';

const LIMIT_NS = 10e6;
const FILES = 100_000;
const SLOTS = 1000;
const MiB = 2 ** 20;
const WAYS = [
  'publish, many folders',
  'publish, one folder',
  `cloneMany of ${SLOTS}`,
  'first clone of a size',
  'slots()',
  'usage()',
  'verify()',
  'recover()',
  'gc()',
];

/** @type {import('./index.mjs').Measure} */
export const holds = {
  name: 'event-loop-holds',
  title: 'longest turn of the event loop, in processor time',
  filesystems: ['xfs'],
  full: { rounds: 3, seconds: 30 },
  quick: undefined,
  turn: ONE_SAMPLE,
  warmUps: 0,
  targets: WAYS.map((way) => atMost(way, LIMIT_NS, formatNs)),
  async contestants(workspace) {
    const { stack } = await workspace.template('one-extent');
    const folder = await workspace.newFolder('holds');
    const clonesDir = join(folder, 'vms');
    const { RootfsRegistry } = workspace.library;
    const registry = new RootfsRegistry({ templateDir: workspace.templateDir, clonesDir });
    const publisher = new RootfsRegistry({
      templateDir: join(folder, 'templates'),
      clonesDir: join(folder, 'none'),
    });
    workspace.onEnd(() => registry.close());
    workspace.onEnd(() => publisher.close());
    await registry.prewarm(stack, { count: 0 });
    const requests = () =>
      Array.from({ length: SLOTS }, () => ({ vmId: newVmId(), stack, options: { writable: true } }));
    const kept = requests();
    await registry.cloneMany(kept);
    const keep = kept.map(({ vmId }) => vmId);
    const trees = { many: join(folder, 'many'), one: join(folder, 'one') };
    makeTree(trees.many, 200);
    makeTree(trees.one, 1);
    /** @type {string[]} */
    const made = [];
    let sizeBytes = 256 * MiB;
    await mkdir(join(folder, 'templates'));
    /** @type {Record<string, [does: string, work: () => Promise<unknown>]>} */
    const works = {
      'publish, many folders': [
        `publishStack of ${FILES} small files in 200 folders`,
        () => publisher.publishStack('many', trees.many, { replace: true }),
      ],
      'publish, one folder': [
        `publishStack of ${FILES} small files in one folder`,
        () => publisher.publishStack('one', trees.one, { replace: true }),
      ],
      [`cloneMany of ${SLOTS}`]: [
        `cloneMany of ${SLOTS} requests`,
        () => {
          const more = requests();
          made.push(...more.map(({ vmId }) => vmId));
          return registry.cloneMany(more);
        },
      ],
      'first clone of a size': [
        'cloneForVmWithSize to a size that nobody had: resize2fs and e2fsck are run',
        async () => {
          sizeBytes += MiB;
          const vmId = newVmId();
          made.push(vmId);
          await registry.cloneForVmWithSize(vmId, stack, sizeBytes, { writable: true });
        },
      ],
      'slots()': [
        `for await of slots(), ${SLOTS} of them`,
        async () => {
          for await (const _ of registry.slots());
        },
      ],
      'usage()': [`usage() of ${SLOTS} slots`, () => registry.usage()],
      'verify()': [`verify() of ${SLOTS} slots and the templates`, () => registry.verify()],
      'recover()': [`recover() of ${SLOTS} slots`, () => registry.recover()],
      'gc()': [`gc({ keep }) of ${SLOTS} slots`, () => registry.gc({ keep })],
    };
    return {
      about: '',
      contestants: Object.entries(works).map(([name, [does, work]]) => ({
        name,
        does,
        sample: () => longestTurnNs(work),
        afterEach: () => releaseAll(registry, made.splice(0)),
      })),
    };
  },
};

/**
 * @param {string} path
 * @param {number} folders
 */
function makeTree(path, folders) {
  for (let i = 0; i < FILES; i++) {
    const folder = folders === 1 ? path : join(path, `folder-${i % folders}`);
    if (i < folders) mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `file-${i}`), `contents of ${i}`);
  }
}
