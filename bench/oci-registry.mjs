// docker-registry as a process of its own, on a free port of this host.
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * @param {import('./workspace.mjs').Workspace} workspace at whose end it ends
 * @returns {Promise<string>} its host and port
 */
export async function startOciRegistry(workspace) {
  const folder = await workspace.newFolder('registry');
  const host = `127.0.0.1:${await freePort()}`;
  const config = join(folder, 'config.yml');
  await mkdir(join(folder, 'data'));
  await writeFile(
    config,
    `version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: ${folder}/data } }
http: { addr: ${host} }
`,
  );
  const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  /** @type {Error | undefined} */
  let failure;
  child.once('error', (error) => {
    failure = new Error(`cannot start docker-registry (package docker-registry): ${error.message}`);
  });
  workspace.onEnd(() => {
    child.kill();
    return ended;
  });
  for (let tries = 0; tries < 100; tries++) {
    if (failure !== undefined) throw failure;
    const answered = await fetch(`http://${host}/v2/`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (answered) return host;
    await sleep(100);
  }
  throw new Error('docker-registry does not answer');
}

/** @returns {Promise<number>} */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}
