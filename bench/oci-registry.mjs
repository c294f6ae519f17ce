// docker-registry as a process of its own, on a free port of this host.
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AccessLog } from './access-log.mjs';

/**
 * @typedef {object} OciRegistry
 * @property {string} host its host and port
 * @property {string} data where its blobs lie
 * @property {() => Promise<import('./access-log.mjs').Traffic>} traffic since it was last asked for
 * @property {() => Promise<unknown>} stop
 */

/**
 * @typedef {object} OciRegistryOptions
 * @property {string} [host] its host and port; otherwise a free port of 127.0.0.1
 * @property {string} [data] of another registry, to serve the same blobs
 * @property {string} [config] more lines of its configuration
 * @property {string[]} [under] a program that runs it, and its arguments
 */

/**
 * @param {import('./workspace.mjs').Workspace} workspace at whose end it ends
 * @param {OciRegistryOptions} [options]
 * @returns {Promise<OciRegistry>}
 */
export async function startOciRegistry(workspace, options = {}) {
  const folder = await workspace.newFolder('registry');
  const { host = `127.0.0.1:${await freePort()}`, data = join(folder, 'data'), under = [] } = options;
  const config = join(folder, 'config.yml');
  await mkdir(data, { recursive: true });
  await writeFile(
    config,
    `version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: ${data} } }
http: { addr: ${host} }
${options.config ?? ''}
`,
  );
  const log = openSync(join(folder, 'access.log'), 'w');
  const [program = '', ...args] = [...under, 'docker-registry', 'serve', config];
  const child = spawn(program, args, { stdio: ['ignore', log, 'ignore'] });
  closeSync(log);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  /** @type {Error | undefined} */
  let failure;
  child.once('error', (error) => {
    failure = new Error(`cannot start docker-registry (package docker-registry): ${error.message}`);
  });
  const stop = () => {
    child.kill();
    return ended;
  };
  workspace.onEnd(stop);
  const accessLog = new AccessLog(join(folder, 'access.log'));
  for (let tries = 0; tries < 100; tries++) {
    if (failure !== undefined) throw failure;
    if (child.exitCode !== null) throw new Error(`${program} ended with status ${child.exitCode}`);
    if (await answers(host)) {
      await accessLog.traffic();
      return { host, data, stop, traffic: () => accessLog.traffic() };
    }
    await sleep(100);
  }
  throw new Error('docker-registry does not answer');
}

/** @param {string} host */
function answers(host) {
  return fetch(`http://${host}/v2/`, { signal: AbortSignal.timeout(5000) }).then(
    ({ ok }) => ok,
    () => false,
  );
}

/** @returns {Promise<number>} */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}
