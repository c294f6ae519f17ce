// How skopeo is told what this library's own client knows of a registry: its certificate authority, that it is insecure, where logins lie.

import { copyFile, mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { RegistrySettings } from '../system/config.js';

export async function skopeoAccess(
  source: string,
  workFolder: string,
  registries: RegistrySettings,
): Promise<string[]> {
  const [, host = ''] = /^docker:\/\/([^/]+)\//.exec(source) ?? [];
  const { insecure, ca } = registries[host] ?? {};
  return [
    ...(insecure === true ? ['--src-tls-verify=false'] : []),
    ...(ca === undefined ? [] : ['--src-cert-dir', await certificateFolder(ca, workFolder)]),
    ...(await dockerLogins()),
  ];
}

/** skopeo takes a folder, and from it only what ends in `.crt`. */
async function certificateFolder(ca: string, workFolder: string): Promise<string> {
  const folder = join(workFolder, 'certificates');
  await mkdir(folder);
  await copyFile(ca, join(folder, 'ca.crt'));
  return folder;
}

/** `DOCKER_CONFIG` is docker's own; skopeo looks in the home folder alone. */
async function dockerLogins(): Promise<string[]> {
  const { DOCKER_CONFIG, REGISTRY_AUTH_FILE } = process.env;
  if (!DOCKER_CONFIG || REGISTRY_AUTH_FILE) return [];
  const path = join(DOCKER_CONFIG, 'config.json');
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  return isThere ? ['--authfile', path] : [];
}
