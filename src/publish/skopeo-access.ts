// Passes this library's settings of one registry to skopeo: the certificate authority, whether the registry knows
// no TLS, and the login. skopeo looks for logins itself, but not in all places and not in all spellings.

import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Credentials, StoredLogin } from './credentials.js';

/** In the work folder. */
const LOGINS = 'logins';

/** `host` is as in the name that skopeo is given. {@link forgetLogins} once it has ended. */
export async function skopeoAccess(
  { isPlain, ca }: { readonly isPlain: boolean; readonly ca: string | undefined },
  host: string,
  { credentials, trouble }: StoredLogin,
  workFolder: string,
): Promise<string[]> {
  return [
    ...(isPlain ? ['--src-tls-verify=false'] : []),
    ...(ca === undefined ? [] : ['--src-cert-dir', await certificateFolder(ca, workFolder)]),
    ...(credentials === undefined ? [] : ['--src-authfile', await loginFile(host, credentials, workFolder)]),
    // It would fail at the same file or helper, though the image may be public.
    ...(credentials === undefined && trouble !== undefined ? ['--src-no-creds'] : []),
  ];
}

/** skopeo takes a folder, and reads only `.crt` files from it. */
async function certificateFolder(ca: string, workFolder: string): Promise<string> {
  const folder = await mkdtemp(join(workFolder, 'certificates-'));
  await copyFile(ca, join(folder, 'ca.crt'));
  return folder;
}

/** Not on the command line, which every user can read. */
async function loginFile(host: string, credentials: Credentials, workFolder: string): Promise<string> {
  const folder = join(workFolder, LOGINS);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(await mkdtemp(join(folder, 'login-')), 'auth.json');
  await writeFile(path, JSON.stringify({ auths: { [host]: entryOf(credentials) } }), { mode: 0o600 });
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
