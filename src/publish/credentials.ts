// Stored logins: those of docker, podman, skopeo and oras, or of their credential helpers. A file or a helper that
// cannot be used is passed over, as docker does: the next may have the login, and a public image needs none.

import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { programFailed } from '../programs/program-failed.js';
import { runInstalled } from '../programs/run-program.js';
import { isGone, RootfsError } from '../system/errors.js';
import { canonicalHost } from '../system/registry-settings.js';

export type Credentials =
  | { readonly username: string; readonly password: string }
  | { readonly identityToken: string };

export interface StoredLogin {
  /** Undefined if no login is stored. */
  readonly credentials: Credentials | undefined;
  /** Why logins could not be used, for the message if access is refused. */
  readonly trouble: RootfsError | undefined;
}

interface LoginFile {
  readonly auths?: Readonly<Record<string, unknown>>;
  readonly credHelpers?: Readonly<Record<string, string>>;
  readonly credsStore?: string;
}

// The name under which logins for docker.io are stored.
const DOCKER_HUB = 'https://index.docker.io/v1/';

/** Rejects if aborted, and for nothing else. */
export async function credentialsFor(
  host: string,
  repository: string,
  signal: AbortSignal | undefined,
): Promise<StoredLogin> {
  let trouble: RootfsError | undefined;
  for (const path of loginFiles(process.env)) {
    try {
      const file = await readLogins(path);
      const credentials = file && (await credentialsIn(file, canonicalHost(host), repository, signal));
      if (credentials !== undefined) return { credentials, trouble };
    } catch (error) {
      if (signal?.aborted || !(error instanceof RootfsError)) throw error;
      trouble ??= error;
    }
  }
  return { credentials: undefined, trouble };
}

/** Each form in which a message may repeat them. */
export function secretsIn(credentials: Credentials | undefined): string[] {
  if (credentials === undefined) return [];
  if ('identityToken' in credentials) return [credentials.identityToken];
  const { username, password } = credentials;
  const login = `${username}:${password}`;
  return [login, Buffer.from(login, 'utf8').toString('base64'), password];
}

/** In the order in which they are read. */
export function loginFiles(env: Readonly<Record<string, string | undefined>>): string[] {
  const home = env.HOME || homeOfUser();
  const inHome = (folder: string) => (home === undefined ? undefined : join(home, folder));
  const configs = env.XDG_CONFIG_HOME || inHome('.config');
  const docker = env.DOCKER_CONFIG || inHome('.docker');
  const files = env.REGISTRY_AUTH_FILE
    ? [env.REGISTRY_AUTH_FILE]
    : [
        // Root, services and sudo have no XDG_RUNTIME_DIR.
        env.XDG_RUNTIME_DIR
          ? join(env.XDG_RUNTIME_DIR, 'containers/auth.json')
          : `/run/containers/${process.getuid?.()}/auth.json`,
        ...(configs === undefined ? [] : [join(configs, 'containers/auth.json')]),
      ];
  return [...files, ...(docker === undefined ? [] : [join(docker, 'config.json')])];
}

/** A container may run as a user without an entry in passwd. */
function homeOfUser(): string | undefined {
  try {
    return homedir();
  } catch {
    return undefined;
  }
}

async function readLogins(path: string): Promise<LoginFile | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (isGone(error)) return undefined;
    throw unusable(path, (error as Error).message);
  }
  try {
    // Editors of Windows put a byte order mark before the text.
    const file: unknown = JSON.parse(text.replace(/^\ufeff/, ''));
    if (typeof file === 'object' && file !== null) return file;
  } catch {
    // The parser's message would quote the file, which holds passwords.
  }
  throw unusable(path, 'it is not a JSON object');
}

async function credentialsIn(
  file: LoginFile,
  host: string,
  repository: string,
  signal: AbortSignal | undefined,
): Promise<Credentials | undefined> {
  const helper = entriesFor(host, file.credHelpers)[0];
  if (helper !== undefined) return askHelper(helper[1], helper[0], signal);
  const scoped = scopedKeys(host, repository).map((key) => file.auths?.[key]);
  const ofHost = entriesFor(host, file.auths).map(([, entry]) => entry);
  for (const entry of [...scoped, ...ofHost]) {
    const credentials = fromEntry(entry);
    if (credentials !== undefined) return credentials;
  }
  if (file.credsStore) return askHelper(file.credsStore, host === 'docker.io' ? DOCKER_HUB : host, signal);
  return undefined;
}

/** The longest first: containers' `auth.json` has logins for a part of a registry as well. */
function scopedKeys(host: string, repository: string): string[] {
  const parts = repository.split('/');
  return parts.map((_, i) => [host, ...parts.slice(0, parts.length - i)].join('/'));
}

/** A key with our spelling of the name comes before other spellings. */
function entriesFor<T>(host: string, entries: Readonly<Record<string, T>> | undefined): [string, T][] {
  const found = Object.entries(entries ?? {}).filter(([key]) => hostOf(key) === host);
  return found.sort(([a], [b]) => Number(b === host) - Number(a === host));
}

/** The host in a key. Only a key with a scheme may have a path that does not matter: `https://HOST/v1/`. */
function hostOf(key: string): string {
  const name = /^https?:\/\/([^/]*)/.exec(key)?.[1] ?? key;
  return canonicalHost(name);
}

/** Undefined for an entry without a login. docker has such an entry for a login that its helper keeps. */
function fromEntry(entry: unknown): Credentials | undefined {
  const texts = Object.entries(entry ?? {}).filter(([, value]) => typeof value === 'string' && value !== '');
  const {
    identitytoken,
    auth,
    username,
    password = '',
  } = Object.fromEntries(texts) as Record<string, string>;
  if (identitytoken !== undefined) return { identityToken: identitytoken };
  if (auth !== undefined) {
    const [name = '', ...rest] = Buffer.from(auth, 'base64').toString('utf8').split(':');
    if (name !== '') return { username: name, password: rest.join(':').replace(/\0+$/, '') };
  }
  return username === undefined ? undefined : { username, password };
}

async function askHelper(
  helper: string,
  server: string,
  signal: AbortSignal | undefined,
): Promise<Credentials | undefined> {
  const program = `docker-credential-${helper}`;
  if (!/^[A-Za-z0-9_.-]+$/.test(helper))
    throw unusable(program, 'its name has characters that are not allowed');
  const exit = await runInstalled(
    {
      name: program,
      package: 'that ships it, or delete its name from the login file',
      notFound: 'PROGRAM_NOT_FOUND',
    },
    ['get'],
    signal,
    // Helpers take their own logins from variables: AWS_PROFILE, GNUPGHOME, DBUS_SESSION_BUS_ADDRESS and so on.
    { feed: async (stdin) => void stdin.end(server), env: process.env },
  );
  if (exit.status !== 0) {
    if (/credentials not found/i.test(exit.stdout + exit.stderr)) return undefined;
    // Helpers print there why they fail. Anything that looks like an answer may hold a secret.
    const stdout = exit.stdout.includes('{') ? '' : exit.stdout;
    throw programFailed('REGISTRY_UNAUTHORIZED', program, server, { ...exit, stdout });
  }
  try {
    const { Username, Secret } = JSON.parse(exit.stdout);
    if (typeof Secret !== 'string' || typeof Username !== 'string') return undefined;
    return Username === '<token>' ? { identityToken: Secret } : { username: Username, password: Secret };
  } catch {
    throw unusable(program, 'its output is not JSON');
  }
}

function unusable(path: string, why: string): RootfsError {
  return new RootfsError('REGISTRY_UNAUTHORIZED', `logins cannot be read from ${path}: ${why}`, { path });
}
