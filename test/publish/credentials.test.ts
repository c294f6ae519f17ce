// Stored logins: found as docker, podman and skopeo find them, whatever else is in their files.
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import os from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, inject, onTestFinished, test, vi } from 'vitest';
import { credentialsFor, loginFiles } from '../../src/publish/credentials.js';
import { Host } from '../fixtures/host.js';

const NAMES = ['HOME', 'PATH', 'REGISTRY_AUTH_FILE', 'XDG_RUNTIME_DIR', 'XDG_CONFIG_HOME', 'DOCKER_CONFIG'];

let home = '';

beforeEach(async () => {
  const before = NAMES.map((name) => [name, process.env[name]] as const);
  onTestFinished(() => {
    for (const [name, value] of before)
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  });
  for (const name of NAMES.slice(2)) delete process.env[name];
  home = (await Host.in(inject('scratch'))).root;
  process.env.HOME = home;
  process.env.XDG_RUNTIME_DIR = join(home, 'run');
});

async function put(path: string, contents: unknown): Promise<void> {
  await mkdir(join(home, path, '..'), { recursive: true });
  await writeFile(join(home, path), typeof contents === 'string' ? contents : JSON.stringify(contents));
}

const DOCKER = '.docker/config.json';
const PODMAN = '.config/containers/auth.json';
const auth = (login: string) => ({ auth: Buffer.from(login).toString('base64') });
const look = (host = 'registry.example', repository = 'team/app') =>
  credentialsFor(host, repository, undefined);
const find = async (...of: Parameters<typeof look>) => (await look(...of)).credentials;
/** What is told if access is refused. */
const trouble = async () => (await look()).trouble?.message ?? '';
const login = (username: string, password: string) => ({ username, password });

test('files are asked in the order of podman, then docker', () => {
  // Where `podman login` puts it without XDG_RUNTIME_DIR: of root, of a service, under sudo.
  const ofUser = `/run/containers/${process.getuid?.()}/auth.json`;
  const inHome = ['/h/.config/containers/auth.json', '/h/.docker/config.json'];
  expect(loginFiles({ HOME: '/h' })).toEqual([ofUser, ...inHome]);
  expect(
    loginFiles({ HOME: '/h', XDG_RUNTIME_DIR: '/run/1', XDG_CONFIG_HOME: '/c', DOCKER_CONFIG: '/d' }),
  ).toEqual(['/run/1/containers/auth.json', '/c/containers/auth.json', '/d/config.json']);
  expect(loginFiles({ HOME: '/h', REGISTRY_AUTH_FILE: '/a', XDG_RUNTIME_DIR: '/run/1' })).toEqual([
    '/a',
    '/h/.docker/config.json',
  ]);
  expect(loginFiles({ HOME: '/h', XDG_RUNTIME_DIR: '', REGISTRY_AUTH_FILE: '' })).toEqual([
    ofUser,
    ...inHome,
  ]);
});

test('without a file, and in files without this registry, there is no login', async () => {
  expect(await find()).toBeUndefined();
  await put(DOCKER, {});
  expect(await find()).toBeUndefined();
  await put(DOCKER, { auths: { 'other.example': auth('a:b') }, credHelpers: { 'other.example': 'x' } });
  expect(await find()).toBeUndefined();
});

test('the login for the longest part of the name counts, then that for the host in each of its spellings', async () => {
  await put(PODMAN, {
    auths: {
      'registry.example/team/app': auth('app:1'),
      'registry.example/team': auth('team:2'),
      'registry.example': auth('all:3'),
    },
  });
  expect(await find()).toEqual(login('app', '1'));
  expect(await find('registry.example', 'team/other')).toEqual(login('team', '2'));
  expect(await find('registry.example', 'else')).toEqual(login('all', '3'));
  expect(await find('registry.example:5000')).toBeUndefined();
  const example = 'registry.example';
  const spellings = ['', '/', '/v1/', '/v2', '/v2/'].map((path) => `https://${example}${path}`);
  for (const key of [...spellings, `http://${example}`]) {
    await put(PODMAN, { auths: { [key]: auth('u:p') } });
    expect(await find(), key).toEqual(login('u', 'p'));
    await put(PODMAN, { auths: { [key]: auth('u:p'), [example]: auth('exact:p') } });
    expect(await find(), key).toEqual(login('exact', 'p'));
  }
  for (const key of [`${example}/other`, `https://other.example/${example}`, `${example}.evil`]) {
    await put(PODMAN, { auths: { [key]: auth('u:p') } });
    expect(await find(), key).toBeUndefined();
  }
  await put(PODMAN, { auths: { 'https://index.docker.io/v1/': auth('hub:p') } });
  for (const name of ['docker.io', 'index.docker.io', 'registry-1.docker.io'])
    expect(await find(name, 'library/app')).toEqual(login('hub', 'p'));
  expect(await find('registry.example')).toBeUndefined();
  await put(PODMAN, { auths: { 'Registry.Example': auth('u:p') } });
  expect(await find('registry.example')).toEqual(login('u', 'p'));
});

test('a password is whatever stands behind the first colon', async () => {
  for (const [text, expected] of [
    ['u:p:q', login('u', 'p:q')],
    ['ü:pä', login('ü', 'pä')],
    ['u:', login('u', '')],
    // Old versions of docker fill up with zeros.
    ['u:p\0\0\0', login('u', 'p')],
  ] as const) {
    await put(DOCKER, { auths: { 'registry.example': auth(text) } });
    expect(await find()).toEqual(expected);
  }
  await put(DOCKER, { auths: { 'registry.example': { username: 'u', password: 'p' } } });
  expect(await find()).toEqual(login('u', 'p'));
  await put(DOCKER, { auths: { 'registry.example': { ...auth('<token>:x'), identitytoken: 'T' } } });
  expect(await find()).toEqual({ identityToken: 'T' });
});

test.each([
  null,
  {},
  'text',
  5,
  [],
  { auth: 5 },
  { auth: null },
  { auth: {} },
  { auth: '' },
  { auth: auth(':password').auth },
  { identitytoken: {} },
  { identitytoken: '' },
  { username: 7, password: 'x' },
  { username: '' },
  { password: 'x' },
])('an entry that is %j is no login, and the next one is looked at', async (entry) => {
  await put(PODMAN, { auths: { 'registry.example/team': entry, 'registry.example': entry } });
  expect(await find()).toBeUndefined();
  await put(PODMAN, { auths: { 'registry.example/team': entry, 'registry.example': auth('u:p') } });
  expect(await find()).toEqual(login('u', 'p'));
  await put(PODMAN, { auths: { 'registry.example': entry } });
  await put(DOCKER, { auths: { 'registry.example': auth('docker:p') } });
  expect(await find()).toEqual(login('docker', 'p'));
});

test.each(['', '{', '"text"', 'null', '5', `{"auths": {"registry.example": {"auth": "c2VjcmV0`])(
  'a file that holds %j is passed over, told by its name, and nothing of it is shown',
  async (contents) => {
    await put(PODMAN, contents);
    expect(await find()).toBeUndefined();
    const { trouble: error } = await look();
    expect(error?.message).toContain(join(home, PODMAN));
    expect(JSON.stringify([error?.message, String(error?.cause)])).not.toContain('c2VjcmV0');
    await put(DOCKER, { auths: { 'registry.example': auth('u:p') } });
    expect(await find()).toEqual(login('u', 'p'));
  },
);

test('a folder in place of a file is passed over', async () => {
  await mkdir(join(home, DOCKER), { recursive: true });
  expect(await find()).toBeUndefined();
  expect(await trouble()).toContain(join(home, DOCKER));
});

test('a file may begin with a byte order mark', async () => {
  await put(DOCKER, `\ufeff${JSON.stringify({ auths: { 'registry.example': auth('u:p') } })}`);
  expect(await look()).toEqual({ credentials: login('u', 'p'), trouble: undefined });
});

test('a user without a home has the files that variables name', () => {
  // As os.homedir() does for a user without an entry in passwd.
  const none = vi.spyOn(os, 'homedir').mockImplementation(() => {
    throw new Error('uv_os_homedir');
  });
  onTestFinished(() => none.mockRestore());
  syncBuiltinESMExports();
  expect(loginFiles({ XDG_RUNTIME_DIR: '/run/1' })).toEqual(['/run/1/containers/auth.json']);
  expect(loginFiles({ REGISTRY_AUTH_FILE: '/a', DOCKER_CONFIG: '/d' })).toEqual(['/a', '/d/config.json']);
});

test.each([{ auths: null }, { auths: 'x' }, { auths: [] }, { credHelpers: null }, { credsStore: '' }, []])(
  'a file with %j in it has no login',
  async (contents) => {
    await put(DOCKER, contents);
    expect(await find()).toBeUndefined();
  },
);

describe('a credential helper', () => {
  async function helper(name: string, script: string): Promise<void> {
    const path = join(home, `bin/docker-credential-${name}`);
    await put(`bin/docker-credential-${name}`, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
    process.env.PATH = `${join(home, 'bin')}:${process.env.PATH}`;
  }

  test('is asked for the host, and goes before what is stored', async () => {
    await helper('mine', 'read host; echo "{\\"Username\\":\\"$1 $host\\",\\"Secret\\":\\"s\\"}"');
    await put(DOCKER, {
      auths: { 'registry.example': auth('u:p') },
      credHelpers: { 'registry.example': 'mine' },
    });
    expect(await find()).toEqual(login('get registry.example', 's'));
    // The one for all registries goes behind.
    await put(DOCKER, { auths: { 'registry.example': auth('u:p') }, credsStore: 'mine' });
    expect(await find()).toEqual(login('u', 'p'));
    await put(DOCKER, { auths: { 'registry.example': {} }, credsStore: 'mine' });
    expect(await find()).toEqual(login('get registry.example', 's'));
    expect(await find('docker.io', 'app')).toEqual(login('get https://index.docker.io/v1/', 's'));
    for (const key of ['https://index.docker.io/v1/', 'docker.io']) {
      await put(DOCKER, { credHelpers: { [key]: 'mine' } });
      expect(await find('docker.io', 'app')).toEqual(login(`get ${key}`, 's'));
    }
  });

  test('may have a token, nothing, or an answer of another kind', async () => {
    await put(DOCKER, { credsStore: 'mine' });
    process.env.AWS_PROFILE = 'team';
    onTestFinished(() => void delete process.env.AWS_PROFILE);
    await helper('mine', 'echo "{\\"Username\\":\\"$AWS_PROFILE\\",\\"Secret\\":\\"s\\"}"');
    expect(await find()).toEqual(login('team', 's'));
    await helper('mine', `echo '{"Username":"<token>","Secret":"T"}'`);
    expect(await find()).toEqual({ identityToken: 'T' });
    await helper('mine', 'echo credentials not found in native keychain; exit 1');
    expect(await find()).toBeUndefined();
    await helper('mine', `echo '{"Username":1,"Secret":"T"}'`);
    expect(await find()).toBeUndefined();
    for (const script of ['echo secret', 'echo null', 'true']) {
      await helper('mine', script);
      expect(await find()).toBeUndefined();
      expect(await trouble()).toContain('its output is not JSON');
      expect(await trouble()).not.toContain('secret');
    }
    await helper('mine', 'echo secret; echo broken >&2; exit 3');
    expect(await trouble()).toContain('broken');
    expect(await trouble()).not.toContain('secret');
    // Where helpers write it, but no answer.
    await helper('mine', 'echo pass not initialized; exit 1');
    expect(await trouble()).toContain('pass not initialized');
    await helper('mine', `echo '{"Secret":"secret"}'; exit 1`);
    expect(await trouble()).not.toContain('secret');
  });

  test('whose name leads elsewhere, or is not there, is not run', async () => {
    for (const name of ['../evil', 'a b', 'a;b', '$(x)', 'ä']) {
      await put(DOCKER, { credsStore: name });
      expect(await find()).toBeUndefined();
      expect(await trouble()).toContain('not allowed');
    }
    await put(PODMAN, { credHelpers: { 'registry.example': 'not-installed' } });
    await put(DOCKER, { auths: { 'registry.example': auth('u:p') } });
    expect(await find()).toEqual(login('u', 'p'));
    expect(await trouble()).toContain('docker-credential-not-installed');
  });
});
