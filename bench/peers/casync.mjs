// casync, with nginx before its store: chunks cut by content at any byte, 64 KiB on average, each a file of its own.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AccessLog } from '../access-log.mjs';
import { output } from '../command.mjs';
import { freePort } from '../oci-registry.mjs';

/** @typedef {import('../fleet/fleet.mjs').Version} Version */

const PROGRAMS = { casync: ['/usr/bin/casync', 'casync'], nginx: ['/usr/sbin/nginx', 'nginx-light'] };

/** @returns {string | undefined} why it cannot be measured */
export function lacksCasync() {
  const missing = Object.values(PROGRAMS).filter(([path = '']) => !existsSync(path));
  if (missing.length === 0) return undefined;
  return `needs ${missing.map(([, name]) => name).join(' and ')} (apt-get install)`;
}

export class CasyncStore {
  #folder;
  #url;
  #log;
  /** @type {Set<string>} */
  #made = new Set();

  /**
   * @param {string} folder
   * @param {string} url
   */
  constructor(folder, url) {
    this.#folder = folder;
    this.#url = url;
    this.#log = new AccessLog(join(folder, 'access.log'));
  }

  /** @param {import('../workspace.mjs').Workspace} workspace at whose end it ends */
  static async start(workspace) {
    const folder = await workspace.newFolder('casync');
    const port = await freePort();
    await mkdir(join(folder, 'files'));
    const config = join(folder, 'nginx.conf');
    await writeFile(
      config,
      `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log;
events { worker_connections 256; }
http {
  access_log ${folder}/access.log combined;
  client_body_temp_path ${folder}; proxy_temp_path ${folder}; fastcgi_temp_path ${folder};
  uwsgi_temp_path ${folder}; scgi_temp_path ${folder};
  server { listen 127.0.0.1:${port}; root ${folder}/files; sendfile on; }
}
`,
    );
    const child = spawn('/usr/sbin/nginx', ['-p', folder, '-c', config], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    workspace.onEnd(() => {
      child.kill();
      return ended;
    });
    for (let tries = 0; tries < 50 && !existsSync(join(folder, 'access.log')); tries++) await sleep(100);
    return new CasyncStore(folder, `http://127.0.0.1:${port}`);
  }

  /** @param {Version} version a store of it alone */
  async add({ name, image }) {
    if (this.#made.has(name)) return;
    const at = (/** @type {string} */ end) => join(this.#folder, 'files', `${name}.${end}`);
    await output('casync', ['make', `--store=${at('castr')}`, at('caibx'), image]);
    this.#made.add(name);
  }

  /**
   * @param {string} name of a version
   * @param {string} seed an image that the host has
   */
  async extract(name, seed) {
    const made = join(this.#folder, 'extracted');
    const from = `${this.#url}/${name}`;
    await output('casync', ['extract', `--store=${from}.castr`, `--seed=${seed}`, `${from}.caibx`, made]);
    return () => rm(made);
  }

  traffic() {
    return this.#log.traffic();
  }
}
