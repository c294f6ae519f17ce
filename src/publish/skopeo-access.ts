// Passes this library's settings of one registry to skopeo: the certificate authority, whether the registry knows
// no TLS, and the login or a token. skopeo itself would send a stored login to any token service.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readCertificates } from '../system/certificates.js';
import { writeOfMode } from '../system/make-files.js';
import { makeFolders, makeNewFolder } from '../system/make-folders.js';
import type { Credentials } from './credentials.js';

/** What skopeo may have for a registry. */
export interface RegistryAccess {
  /** It knows no TLS, and may be reached without. */
  readonly isPlain: boolean;
  /** With one, skopeo asks no token service. */
  readonly token: string | undefined;
  /** The login, if it may get that. */
  readonly credentials: Credentials | undefined;
  /** For a refusal: why it has no login, if there is a reason. */
  readonly trouble: string;
  /** Whether that may be another way soon. */
  readonly mayPass: boolean;
}

export const NO_LOGIN: RegistryAccess = {
  isPlain: false,
  token: undefined,
  credentials: undefined,
  trouble: '',
  mayPass: false,
};

/** In the work folder. */
const LOGINS = 'logins';

/** `host` is as in the name that skopeo is given. {@link forgetLogins} once it has ended. */
export async function skopeoAccess(
  { isPlain, token, credentials }: RegistryAccess,
  ca: string | undefined,
  host: string,
  workFolder: string,
): Promise<string[]> {
  return [
    ...(isPlain ? ['--src-tls-verify=false'] : []),
    ...(ca === undefined ? [] : ['--src-cert-dir', await certificateFolder(ca, workFolder)]),
    ...(credentials === undefined
      ? // Mirrors of its registries.conf do not get the token either then.
        ['--src-no-creds']
      : ['--src-authfile', await loginFile(host, credentials, workFolder)]),
    // It takes a token in no file.
    ...(token === undefined ? [] : ['--src-registry-token', token]),
  ];
}

/** skopeo takes a folder, and reads only `.crt` files from it. */
async function certificateFolder(ca: string, workFolder: string): Promise<string> {
  const certificates = await readCertificates(ca);
  const folder = await makeNewFolder(join(workFolder, 'certificates-'));
  await writeOfMode(join(folder, 'ca.crt'), certificates);
  return folder;
}

/** Not on the command line, which every user can read. */
async function loginFile(host: string, credentials: Credentials, workFolder: string): Promise<string> {
  const folder = join(workFolder, LOGINS);
  await makeFolders(folder, 0o700);
  const path = join(await makeNewFolder(join(folder, 'login-')), 'auth.json');
  await writeOfMode(path, JSON.stringify({ auths: { [host]: entryOf(credentials) } }));
  return path;
}

export async function forgetLogins(workFolder: string): Promise<void> {
  await rm(join(workFolder, LOGINS), { recursive: true, force: true });
}

function entryOf(credentials: Credentials): object {
  const isToken = 'identityToken' in credentials;
  const login = isToken ? '<token>:' : `${credentials.username}:${credentials.password}`;
  const auth = Buffer.from(login).toString('base64');
  return isToken ? { auth, identitytoken: credentials.identityToken } : { auth };
}
