// casync, with nginx before its store: chunks cut by content at any byte, 64 KiB on average, each a file of its own.
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { output } from '../command.mjs';
import { lacksNginx, startNginx } from '../nginx.mjs';

/** @typedef {import('../fleet/fleet.mjs').Version} Version */

/** @returns {string | undefined} why it cannot be measured */
export function lacksCasync() {
  return existsSync('/usr/bin/casync') ? lacksNginx() : 'needs casync (apt-get install casync)';
}

export class CasyncStore {
  #folder;
  #server;
  /** @type {Set<string>} */
  #made = new Set();

  /**
   * @param {string} folder
   * @param {Awaited<ReturnType<typeof startNginx>>} server
   */
  constructor(folder, server) {
    this.#folder = folder;
    this.#server = server;
  }

  /** @param {import('../workspace.mjs').Workspace} workspace at whose end it ends */
  static async start(workspace) {
    const folder = await workspace.newFolder('casync');
    await mkdir(join(folder, 'files'));
    const server = `root ${folder}/files; sendfile on;`;
    return new CasyncStore(folder, await startNginx(workspace, folder, { server }));
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
    const from = `${this.#server.url}/${name}`;
    await output('casync', ['extract', `--store=${from}.castr`, `--seed=${seed}`, `${from}.caibx`, made]);
    return () => rm(made);
  }

  traffic() {
    return this.#server.traffic();
  }
}
