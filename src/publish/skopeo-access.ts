// Passes this library's settings of one registry to skopeo: the certificate authority, and whether the registry is
// insecure. It finds stored logins itself, in the order of this library.

import { copyFile, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import type { RegistrySetting } from '../system/registry-settings.js';

export async function skopeoAccess({ insecure, ca }: RegistrySetting, workFolder: string): Promise<string[]> {
  return [
    ...(insecure === true ? ['--src-tls-verify=false'] : []),
    ...(ca === undefined ? [] : ['--src-cert-dir', await certificateFolder(ca, workFolder)]),
  ];
}

/** skopeo takes a folder, and reads only `.crt` files from it. */
async function certificateFolder(ca: string, workFolder: string): Promise<string> {
  const folder = await mkdtemp(join(workFolder, 'certificates-'));
  await copyFile(ca, join(folder, 'ca.crt'));
  return folder;
}
