// Logins: what the token service of a registry is asked for, and what becomes of its answers.
import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { Task } from '../../src/system/task.js';
import { clientOf, LOGIN, serve } from '../fixtures/fake-registry.js';
import { basic as basicLogin } from '../fixtures/logins.js';
import { rejection } from '../fixtures/rejection.js';

const task = new Task('asking', undefined);
const DIGEST = `sha256:${'0'.repeat(64)}`;

/** A registry whose challenge names the right to read alone, and that wants `token` for all else. */
async function guarded(token: (request: IncomingMessage, url: URL) => Promise<string> | string) {
  const asked: { method: string; url: URL; authorization: string | undefined; body: string }[] = [];
  const host = await serve(async (request, response) => {
    const url = new URL(request.url ?? '', `http://${host}`);
    const { authorization } = request.headers;
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    const body = await text(request);
    if (url.pathname.startsWith('/token')) {
      asked.push({ method: request.method ?? '', url, authorization, body });
      const answer = await token(request, url);
      const headers = answer.startsWith('/') ? { location: answer } : {};
      response.writeHead(answer.startsWith('/') ? 307 : 200, headers).end(answer);
    } else if (authorization === undefined) {
      const challenge = `Bearer realm="http://${host}/token",service="s",scope="repository:a/b:pull"`;
      response.writeHead(401, { 'www-authenticate': challenge }).end();
    } else if (isRead) response.writeHead(404).end();
    else response.writeHead(authorization.includes('push') ? 201 : 403).end();
  });
  return { host, asked };
}

/** As the name of what it allows. */
const tokenFor = (scope: string) => JSON.stringify({ token: scope.replaceAll(/\W/g, '_') });
const manifest = { bytes: Buffer.from('{}'), mediaType: 'x' };

test('the first token of a push is good for writing, though the first request only reads', async () => {
  const { host, asked } = await guarded((_, url) => tokenFor(url.searchParams.getAll('scope').join(' ')));
  const client = await clientOf(host, { actions: 'pull,push' });
  expect(await client.stateOf(task, DIGEST, 10)).toBe('absent');
  await client.putManifest(task, '1', manifest);
  expect(asked.map(({ url }) => url.searchParams.getAll('scope'))).toEqual([['repository:a/b:pull,push']]);
  expect(asked[0]?.authorization).toBe(basicLogin(LOGIN));
});

test('an identity token gets a token by POST, and is in no URL', async () => {
  const { host, asked } = await guarded(() => JSON.stringify({ access_token: 'push' }));
  const client = await clientOf(host, { actions: 'pull,push', login: { identitytoken: 'I&D' } });
  await client.putManifest(task, '1', manifest);
  expect(asked).toHaveLength(1);
  expect(asked[0]).toMatchObject({ method: 'POST', authorization: undefined });
  expect(asked[0]?.url.search).toBe('');
  expect(Object.fromEntries(new URLSearchParams(asked[0]?.body))).toEqual({
    service: 's',
    scope: 'repository:a/b:pull,push',
    grant_type: 'refresh_token',
    client_id: 'microvm-rootfs',
    refresh_token: 'I&D',
  });
});

test.each([
  ['{"token":"","access_token":"push"}', true],
  ['{"token":null,"access_token":"push"}', true],
  ['{"token":"push","access_token":""}', true],
  ['{"token":7,"access_token":"push"}', true],
  ['{"token":""}', false],
  ['{}', false],
  ['[]', false],
])('a token service that sends %s has sent a token: %s', async (answer, isToken) => {
  const { host } = await guarded(() => answer);
  const put = (await clientOf(host, { actions: 'pull,push' })).putManifest(task, '1', manifest);
  if (isToken) await put;
  else expect((await rejection(put, 'REGISTRY_UNAUTHORIZED')).message).toContain('sends no token');
});

test.each([{ auth: 'YTpi' }, { identitytoken: 'T' }])(
  'a redirect of the token service gets no login, such as %j',
  async (login) => {
    const { host, asked } = await guarded((_, url) =>
      url.pathname === '/token' ? '/token/elsewhere' : '{}',
    );
    const client = await clientOf(host, { login });
    await rejection(client.stateOf(task, DIGEST, 10), 'REGISTRY_FAILED');
    expect(asked.map(({ url }) => url.pathname)).toEqual(['/token']);
  },
);

test.each([
  ['http://127.0.0.1:9', [], /realms in .* and set insecure in config\.registries\["127\.0\.0\.1:9"\]/],
  ['http://127.0.0.1:9', ['127.0.0.1:9'], /is not trusted: set insecure/],
  ['https://127.0.0.1:9', [], /realms in config\.registries\["[^"]*"\] if that/],
])(
  'a token service at %s, with the realms %j, is told with all settings that it needs',
  async (at, realms, told) => {
    const host = await serve((_, response) => {
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${at}/token"` }).end();
    });
    const client = await clientOf(host, { realms });
    const { message } = await rejection(client.stateOf(task, DIGEST, 10), 'REGISTRY_UNAUTHORIZED');
    expect(message).toMatch(told);
  },
);

test.each([
  [429, 'REGISTRY_BUSY'],
  [503, 'REGISTRY_BUSY'],
  [500, 'REGISTRY_FAILED'],
])(
  'a token service that answers %i, when asked twice, is not said to refuse the login',
  async (status, code) => {
    const host = await serve((request, response) => {
      const isToken = request.url?.startsWith('/token');
      const headers = { 'www-authenticate': `Bearer realm="http://${host}/token"`, 'retry-after': '0' };
      response.writeHead(isToken ? status : 401, headers).end();
    });
    const started = performance.now();
    const client = await clientOf(host, { isMirror: true });
    const { message } = await rejection(client.stateOf(task, DIGEST, 10), code);
    expect(message).toContain(`status ${status}`);
    expect(performance.now() - started).toBeGreaterThan(240);
  },
);

test('a login that is refused once is tried once more', async () => {
  let refusals = 0;
  const host = await serve((request, response) => {
    const isRefused = request.headers.authorization === undefined || ++refusals === 1;
    response.writeHead(isRefused ? 401 : 404, { 'www-authenticate': 'Basic realm="here"' }).end();
  });
  expect(await (await clientOf(host)).stateOf(task, DIGEST, 10)).toBe('absent');
});
