// Pulling a template from a registry on the same host, into a catalog that is empty, beside the tools that anybody has.
import { readFileSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { run } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { startOciRegistry } from '../oci-registry.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const FLOOR = 'curl, zstd -d, openssl dgst';
const SKOPEO = 'skopeo copy, zstd -d';
/** Real files, as a distribution has them. */
const TREES = ['/usr/share', `/usr/lib/${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu`];

const effort = /** @type {const} */ ({
  filesystems: ['xfs'],
  full: { rounds: 5, seconds: 240 },
  quick: undefined,
  turn: ONE_SAMPLE,
  warmUps: 1,
});

/** @type {import('./index.mjs').Measure} */
export const pull = /** @type {any} */ ({
  ...effort,
  name: 'pull',
  title: 'cold pull of a template',
  targets: [atMostTimes('library', 1.25, FLOOR), atMostTimes('library', 1, SKOPEO)],
  contestants: (/** @type {Workspace} */ workspace) => pullers(workspace, timeNs),
});

/** @type {import('./index.mjs').Measure} */
export const pullProcessors = /** @type {any} */ ({
  ...effort,
  name: 'pull-processors',
  title: 'processor time of a cold pull',
  full: { rounds: 2, seconds: 120 },
  warmUps: 0,
  targets: [],
  contestants: (/** @type {Workspace} */ workspace) => pullers(workspace, processorNs),
});

/**
 * @param {Workspace} workspace
 * @param {(work: () => Promise<unknown>) => Promise<number>} measured
 */
async function pullers(workspace, measured) {
  const { RootfsRegistry } = workspace.library;
  const folder = await workspace.newFolder('pull');
  const host = await startOciRegistry(workspace);
  const reference = `${host}/bench/system:1`;
  const registries = { [host]: { insecure: true } };
  const registryIn = (/** @type {string} */ name) =>
    new RootfsRegistry({
      templateDir: join(folder, name, 'templates'),
      clonesDir: join(folder, name, 'vms'),
      registries,
    });
  const tree = join(folder, 'tree');
  await mkdir(tree);
  await run('cp', ['-a', ...TREES, tree]);
  const first = registryIn('first');
  const { sizeBytes } = await first.publishStack('system', tree);
  const { uploadedBytes } = await first.pushStack('system', reference);
  await first.close();
  const urls = join(folder, 'urls');
  const packs = await packsOf(host);
  await writeFile(
    urls,
    packs.map((digest) => `url = "http://${host}/v2/bench/system/blobs/${digest}"`).join('\n'),
  );
  let hosts = 0;
  return {
    about: `a template of ${formatBytes(sizeBytes)}, ${formatBytes(uploadedBytes)} compressed, from the same host`,
    contestants: [
      {
        name: 'library',
        does: 'pullStack into an empty catalog; e2fsck and a digest of the whole included',
        async sample() {
          const name = `host-${hosts++}`;
          const registry = registryIn(name);
          await workspace.settle();
          const ns = await measured(() => registry.pullStack(reference));
          await registry.close();
          await rm(join(folder, name), { recursive: true });
          return ns;
        },
      },
      {
        name: FLOOR,
        does: 'curl of the same packs | zstd -d | openssl dgst -sha256: nothing is kept',
        sample: () => measured(() => shell(`curl -sS -K ${urls} | zstd -dcq | openssl dgst -sha256`)),
      },
      {
        name: SKOPEO,
        does: 'skopeo copy of the artifact into a folder, then cat of its packs | zstd -d into a file',
        async sample() {
          const place = join(folder, `skopeo-${hosts++}`);
          await workspace.settle();
          const files = packs.map((digest) => digest.slice('sha256:'.length)).join(' ');
          const ns = await measured(() =>
            shell(
              `skopeo copy -q --src-tls-verify=false docker://${reference} dir:${place} && ` +
                `cd ${place} && cat ${files} | zstd -dcq > image`,
            ),
          );
          await rm(place, { recursive: true });
          return ns;
        },
      },
    ],
  };
}

/**
 * @param {string} host
 * @returns {Promise<string[]>} their digests, in order
 */
async function packsOf(host) {
  const headers = { accept: 'application/vnd.oci.image.manifest.v1+json' };
  const answer = await fetch(`http://${host}/v2/bench/system/manifests/1`, { headers });
  const { layers } = /** @type {{ layers: { mediaType: string, digest: string }[] }} */ (await answer.json());
  return layers.filter(({ mediaType }) => mediaType.endsWith('+zstd')).map(({ digest }) => digest);
}

/** @param {string} command */
function shell(command) {
  return run('bash', ['-o', 'pipefail', '-ec', command]);
}

/**
 * Of this process and of the programs that it has waited for.
 * @param {() => Promise<unknown>} work
 */
async function processorNs(work) {
  const before = ticks();
  await work();
  return ((ticks() - before) * 1e9) / 100;
}

/** In hundredths of a second: Linux tells them to programs in these on every architecture that Node runs on. */
function ticks() {
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1]?.split(' ') ?? [];
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
}
