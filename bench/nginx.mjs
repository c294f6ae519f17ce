// nginx as a process of its own, on a free port of this host.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AccessLog } from './access-log.mjs';
import { freePort } from './oci-registry.mjs';

const PROGRAM = '/usr/sbin/nginx';

/** @returns {string | undefined} why it cannot be started */
export function lacksNginx() {
  return existsSync(PROGRAM) ? undefined : 'needs nginx (package nginx-light)';
}

/**
 * @param {import('./workspace.mjs').Workspace} workspace at whose end it ends
 * @param {string} folder
 * @param {{ http?: string, server: string }} config lines of it
 */
export async function startNginx(workspace, folder, { http = '', server }) {
  const host = `127.0.0.1:${await freePort()}`;
  const at = (/** @type {string} */ name) => join(folder, name);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  await writeFile(
    at('nginx.conf'),
    `user root; worker_processes 2; daemon off; pid ${at('pid')}; error_log ${at('error.log')};
events { worker_connections 1024; }
http {
  access_log ${at('access.log')} combined;
  ${temporary.map((name) => `${name}_temp_path ${at(name)};`).join(' ')}
  ${http}
  server { listen ${host}; ${server} }
}
`,
  );
  const child = spawn(PROGRAM, ['-p', folder, '-c', at('nginx.conf')], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const stop = () => {
    child.kill();
    return ended;
  };
  workspace.onEnd(stop);
  const url = `http://${host}`;
  for (let tries = 0; child.exitCode === null && tries < 50; tries++) {
    const answered = await fetch(url).then(
      () => true,
      () => false,
    );
    const log = new AccessLog(at('access.log'));
    if (answered) return { host, url, stop, traffic: () => log.traffic() };
    await sleep(100);
  }
  throw new Error(`nginx does not answer: ${await readFile(at('error.log'), 'utf8')}`);
}
