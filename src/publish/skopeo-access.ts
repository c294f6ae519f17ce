// Passes this library's registry settings to skopeo: the certificate authority, whether the registry is insecure, and
// where logins are stored.

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

/** skopeo takes a folder, and reads only `.crt` files from it. */
async function certificateFolder(ca: string, workFolder: string): Promise<string> {
  const folder = join(workFolder, 'certificates');
  await mkdir(folder);
  await copyFile(ca, join(folder, 'ca.crt'));
  return folder;
}

/** `DOCKER_CONFIG` is Docker's own variable. skopeo only looks in the home folder. */
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
