// Many hosts pull at once through a cache, and what the origin has to send then.
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ONCE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { fleetOf } from '../fleet/fleet.mjs';
import { copyPackages, upTo } from '../fleet/packages.mjs';
import { formatBytes, formatNs } from '../format.mjs';
import { lacksNginx, startNginx } from '../nginx.mjs';
import { startOciRegistry } from '../oci-registry.mjs';
import { atMostTimes } from '../targets.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */
/** @typedef {{ host: string, stop: () => Promise<unknown> }} Cache */

const MiB = 2 ** 20;
const CHILD = new URL('../children/pull-many.mjs', import.meta.url).pathname;
const PROCESSES = 5;
const ONE = 'one cold pull';
const REGISTRY = 'docker-registry';
const FILLED = 'docker-registry, filled';
const NGINX = 'nginx';

/** @type {import('./index.mjs').Measure} */
export const cache = {
  name: 'cache',
  together: 'fleet',
  title: 'bytes that the origin sends for many pulls at once through a cache',
  filesystems: ['xfs'],
  unit: 'bytes',
  ...ONCE,
  targets: [REGISTRY, FILLED, NGINX].map((way) => atMostTimes(way, 1.2, ONE)),
  async contestants(workspace) {
    const fleet = await fleetOf(workspace);
    const { registry: origin } = fleet;
    const pulls = workspace.quick ? 10 : 50;
    const reference = `${origin.host}/bench/small:1`;
    const { sizeBytes, uploadedBytes } = await pushSmall(fleet, reference, (workspace.quick ? 16 : 32) * MiB);
    const pull = (/** @type {number} */ count, /** @type {string[]} */ mirror = []) =>
      pullAtOnce(workspace, reference, count, mirror);

    /**
     * @param {string} name
     * @param {string} does
     * @param {() => Promise<Cache>} start
     * @param {boolean} isFilled
     */
    const through = (name, does, start, isFilled = false) => {
      let tookNs = 0;
      return {
        name,
        does: `${pulls} × pullStack; ${does}`,
        async sample() {
          const { host, stop } = await start();
          await origin.traffic();
          if (isFilled) await pull(1, [host]);
          tookNs = await pull(pulls, [host]);
          const { bytes } = await origin.traffic();
          await stop();
          return bytes;
        },
        note: () => `${formatNs(tookNs)} for all`,
      };
    };
    const startRegistry = () =>
      startOciRegistry(workspace, { config: `proxy: { remoteurl: http://${origin.host} }` });
    const without = lacksNginx();
    return {
      about:
        `${pulls} catalogs in ${PROCESSES} processes; a small template, of ${formatBytes(sizeBytes)}, ` +
        `${formatBytes(uploadedBytes)} compressed, so that all of them fit on one machine`,
      contestants: [
        {
          name: ONE,
          does: 'pullStack into one empty catalog, without a cache',
          async sample() {
            await origin.traffic();
            await pull(1);
            return (await origin.traffic()).bytes;
          },
        },
        through(REGISTRY, 'docker-registry as a pull-through cache in mirrors, empty', startRegistry),
        {
          name: 'skopeo, docker-registry',
          does: `${pulls} × skopeo copy through docker-registry as a pull-through cache, empty`,
          sample: async () => {
            const { host, stop } = await startRegistry();
            await origin.traffic();
            await copyAtOnce(workspace, `${host}/bench/small:1`, pulls);
            const { bytes } = await origin.traffic();
            await stop();
            return bytes;
          },
        },
        through(FILLED, 'the same after one pull through it, which is counted as well', startRegistry, true),
        {
          ...through(NGINX, 'nginx with proxy_cache_lock in mirrors, empty', () =>
            startCachingNginx(workspace, origin.host),
          ),
          ...(without === undefined ? {} : { unavailable: without }),
        },
      ],
    };
  },
};

/**
 * @param {Workspace} workspace
 * @param {string} reference
 * @param {number} count
 * @param {string[]} mirror
 */
async function pullAtOnce(workspace, reference, count, mirror) {
  const folder = await workspace.newFolder('hosts');
  await workspace.settle();
  const processes = Math.min(PROCESSES, count);
  const ns = await timeNs(() =>
    Promise.all(
      Array.from({ length: processes }, async (_, i) => {
        const args = [join(folder, `${i}`), `${count / processes}`, reference, ...mirror];
        await mkdir(join(folder, `${i}`));
        await output(process.execPath, [CHILD, workspace.libraryFolder, ...args]);
      }),
    ),
  );
  await rm(folder, { recursive: true });
  return ns;
}

/**
 * What others do, so that it is seen what is the cache's own doing.
 * @param {Workspace} workspace
 * @param {string} reference
 * @param {number} count
 */
async function copyAtOnce(workspace, reference, count) {
  const folder = await workspace.newFolder('copies');
  await Promise.all(
    Array.from({ length: count }, (_, i) =>
      output('skopeo', [
        'copy',
        '-q',
        '--src-tls-verify=false',
        `docker://${reference}`,
        `dir:${folder}/${i}`,
      ]),
    ),
  );
  await rm(folder, { recursive: true });
}

/**
 * @param {Workspace} workspace
 * @param {string} origin
 */
async function startCachingNginx(workspace, origin) {
  const folder = await workspace.newFolder('nginx');
  return startNginx(workspace, folder, {
    http: `proxy_cache_path ${folder}/cache keys_zone=blobs:10m max_size=10g inactive=7d use_temp_path=off;`,
    server: `
    proxy_http_version 1.1;
    location / { proxy_pass http://${origin}; }
    location ~ ^/v2/.+/blobs/sha256: {
      proxy_pass http://${origin};
      proxy_cache blobs;
      proxy_cache_valid 200 7d;
      proxy_cache_lock on;
      proxy_cache_lock_age 1h;
      proxy_cache_lock_timeout 1h;
    }`,
  });
}

/**
 * @param {import('../fleet/fleet.mjs').Fleet} fleet
 * @param {string} reference
 * @param {number} bytes
 */
async function pushSmall(fleet, reference, bytes) {
  const { folder, registry, end } = fleet.host('small');
  const tree = join(folder, 'tree');
  await mkdir(tree, { recursive: true });
  await copyPackages(upTo(bytes, fleet.packages), tree);
  const { sizeBytes } = await registry.publishStack('small', tree);
  const { uploadedBytes } = await registry.pushStack('small', reference);
  await end();
  return { sizeBytes, uploadedBytes };
}
