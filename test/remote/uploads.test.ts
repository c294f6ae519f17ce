// What registries answer to a push.
import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { putArtifact } from '../../src/remote/put-artifact.js';
import { Task } from '../../src/system/task.js';
import { clientOf, LOGIN, serve } from '../fixtures/fake-registry.js';
import { basic } from '../fixtures/logins.js';
import { rejection } from '../fixtures/rejection.js';

const task = new Task('asking', undefined);
const BLOB = Buffer.from('the blob');
const DIGEST = `sha256:${createHash('sha256').update(BLOB).digest('hex')}`;
const MANIFEST = { bytes: Buffer.from('{}'), mediaType: 'x' };

const NO_LAYERS = {
  artifactType: 'x',
  layers: [],
  annotations: {},
  sha256: '0'.repeat(64),
  sizeBytes: 0,
  uploadedBytes: 0,
  reusedBytes: 0,
};

interface Asked {
  /** Method, path and query. */
  readonly what: string;
  readonly authorization: string | undefined;
  readonly body: Buffer;
}

interface Reply {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

/** Answers what `reply` says, or else as a registry does that has nothing and takes all. */
async function registryThat(reply: (what: string, request: IncomingMessage) => Reply | undefined) {
  const asked: Asked[] = [];
  const host = await serve(async (request, response) => {
    const what = `${request.method} ${request.url}`;
    asked.push({ what, authorization: request.headers.authorization, body: await buffer(request) });
    const { status, headers, body } = reply(what, request) ?? usual(request.method ?? '');
    response.writeHead(status, headers).end(body);
  });
  const put = () => asked.filter(({ what }) => what.startsWith('PUT'));
  return { host, asked, put, posts: () => asked.filter(({ what }) => what.startsWith('POST')) };
}

function usual(method: string): Reply {
  if (method === 'POST') return { status: 202, headers: { location: '/upload?state=1' } };
  return { status: method === 'PUT' ? 201 : 404 };
}

const pushTo = (host: string, others: readonly string[] = []) =>
  clientOf(host, { others, actions: 'pull,push' });

test.each([
  ['/upload/1?state=a', '/upload/1?state=a&'],
  ['1?state=a', '/v2/a/b/blobs/uploads/1?state=a&'],
  ['/upload/2', '/upload/2?'],
  ['/upload/3?a=%20%FF&flag', '/upload/3?a=%20%FF&flag&'],
])('an upload Location %s is relative to what was asked', async (location, expected) => {
  const { host, put } = await registryThat((what) =>
    what.startsWith('POST') ? { status: 202, headers: { location } } : undefined,
  );
  await (await pushTo(host)).upload(task, DIGEST, BLOB.length, () => BLOB);
  expect(put().map(({ what }) => what)).toEqual([`PUT ${expected}digest=${encodeURIComponent(DIGEST)}`]);
  expect(put()[0]?.body).toEqual(BLOB);
});

test('each piece of an upload is sent before the next is asked for', async () => {
  const { host, put } = await registryThat(() => undefined);
  const piece = Buffer.alloc(1000);
  async function* pieces() {
    for (let i = 0; i < 200; i++) yield piece.fill(i);
  }
  await (await pushTo(host)).upload(task, DIGEST, 200_000, pieces);
  const sent = Buffer.concat(Array.from({ length: 200 }, (_, i) => Buffer.alloc(1000, i)));
  expect(put()[0]?.body.equals(sent)).toBe(true);
});

test('an upload Location at another host gets the blob, if it may be reached so, but no login', async () => {
  const storage = await registryThat(() => undefined);
  const challenge = { 'www-authenticate': 'Basic realm="here"' };
  const { host, asked } = await registryThat((what, { headers }) => {
    if (headers.authorization === undefined) return { status: 401, headers: challenge };
    const location = `http://${storage.host}/upload`;
    return what.startsWith('POST') ? { status: 202, headers: { location } } : undefined;
  });
  await (await pushTo(host, [storage.host])).upload(task, DIGEST, BLOB.length, () => BLOB);
  expect(asked.map(({ authorization }) => authorization)).toEqual([undefined, basic(LOGIN)]);
  expect(storage.asked.map(({ authorization, body }) => [authorization, body])).toEqual([[undefined, BLOB]]);
  const strict = (await pushTo(host)).upload(task, DIGEST, BLOB.length, () => BLOB);
  expect((await rejection(strict, 'REGISTRY_FAILED')).message).toContain('not https');
});

test('a login that ends in the middle of an upload is renewed, and the blob is sent again', async () => {
  let tokens = 0;
  const { host, put } = await registryThat((what, request) => {
    if (what.startsWith('GET /token'))
      return { status: 200, body: JSON.stringify({ token: `T${++tokens}` }) };
    const isValid = request.headers.authorization === `Bearer T${what.startsWith('PUT') ? 2 : tokens}`;
    const challenge = `Bearer realm="http://${request.headers.host}/token"`;
    return isValid ? undefined : { status: 401, headers: { 'www-authenticate': challenge } };
  });
  await (await pushTo(host)).upload(task, DIGEST, BLOB.length, () => BLOB);
  expect(put().map(({ authorization }) => authorization)).toEqual(['Bearer T1', 'Bearer T2']);
  expect(put().at(-1)?.body).toEqual(BLOB);
});

test.each([200, 201, 204])('%i to a PUT means that it is there', async (status) => {
  const { host, put } = await registryThat((what) => (what.startsWith('PUT') ? { status } : undefined));
  const client = await pushTo(host);
  await client.upload(task, DIGEST, BLOB.length, () => BLOB);
  await client.putManifest(task, '1', MANIFEST);
  expect(put()).toHaveLength(2);
});

test('a manifest may be taken with 202, a blob not', async () => {
  const { host } = await registryThat((what) => (what.startsWith('PUT') ? { status: 202 } : undefined));
  const client = await pushTo(host);
  await client.putManifest(task, '1', MANIFEST);
  await rejection(
    client.upload(task, DIGEST, BLOB.length, () => BLOB),
    'REGISTRY_FAILED',
  );
});

test.each([
  ['there', 'its last byte', { status: 206, headers: { 'content-range': 'bytes 7-7/8' }, body: 'b' }],
  ['there', 'its last byte', { status: 206, headers: { 'content-range': 'bytes 7-7/*' }, body: 'b' }],
  ['absent', 'no byte', { status: 206, headers: { 'content-range': 'bytes 7-7/8' } }],
  ['absent', 'another byte', { status: 206, headers: { 'content-range': 'bytes 0-0/8' }, body: 't' }],
  ['there', 'all of it', { status: 200, headers: { 'content-length': '8' }, body: 'the blob' }],
  ['absent', 'what may be it', { status: 200, body: 'the blob' }],
  ['damaged', 'something else', { status: 200, headers: { 'content-length': '3' }, body: '404' }],
  ['damaged', 'an empty blob', { status: 200, headers: { 'content-length': '0' } }],
  ['damaged', 'status 416', { status: 416 }],
  ...[400, 404, 405, 500, 501].map((status) => ['absent', `status ${status}`, { status }] as const),
] as const)('a blob is %s when the registry sends %s', async (state, _, reply) => {
  const { host } = await registryThat(({ length }) => (length > 0 ? reply : undefined));
  expect(await (await pushTo(host)).stateOf(task, DIGEST, BLOB.length)).toBe(state);
});

test('a blob that the registry stops to send at its last byte is not there', async () => {
  const host = await serve((_, response) => {
    response.writeHead(206, { 'content-range': 'bytes 7-7/8', 'content-length': '1' }).flushHeaders();
    response.destroy();
  });
  expect(await (await pushTo(host)).stateOf(task, DIGEST, BLOB.length)).toBe('absent');
});

test('storage that takes only what the registry signed for a GET is asked with a GET', async () => {
  const storage = await registryThat((what) => ({
    status: what.startsWith('GET') ? 206 : 403,
    headers: { 'content-range': 'bytes 7-7/8' },
    body: 'b',
  }));
  const location = `http://${storage.host}/blob`;
  const { host } = await registryThat(() => ({ status: 307, headers: { location } }));
  expect(await (await pushTo(host, [storage.host])).stateOf(task, DIGEST, BLOB.length)).toBe('there');
});

test.each([
  ['has none of what it took', 'application/json', '{}'],
  ['answers everything with a page', 'text/html', '<html>Sign in</html>'],
])('a push to a registry that %s fails', async (_, type, body) => {
  const { host } = await registryThat((what) =>
    what.startsWith('GET') ? { status: 200, headers: { 'content-type': type }, body } : undefined,
  );
  const reference = { host, repository: 'a/b', tag: '1', digest: undefined };
  const { message } = await rejection(
    putArtifact(task, await pushTo(host), reference, NO_LAYERS),
    'REGISTRY_FAILED',
  );
  expect(message).toContain('does not return it');
});

test('an upload that is redirected is made again, and other origins get no login', async () => {
  const { host: storage, put: stored } = await registryThat(() => undefined);
  const { host, put } = await registryThat((what, { headers: { authorization } }) => {
    if (authorization === undefined) return { status: 401, headers: { 'www-authenticate': 'Basic' } };
    if (what.startsWith('PUT /upload')) return { status: 307, headers: { location: '/moved?state=2' } };
    const location = `http://${storage}/blob?signature=3`;
    return what.startsWith('PUT /moved') ? { status: 308, headers: { location } } : undefined;
  });
  const client = await pushTo(host, [storage]);
  await client.upload(task, DIGEST, BLOB.length, () => Readable.from([BLOB]));
  expect(put().map(({ what }) => what.split('?')[0])).toEqual(['PUT /upload', 'PUT /moved']);
  expect(stored()).toEqual([{ what: 'PUT /blob?signature=3', authorization: undefined, body: BLOB }]);
});

test('an upload is begun where the registry redirects to', async () => {
  const { host, posts, put } = await registryThat((what) =>
    what === 'POST /v2/a/b/blobs/uploads/' ? { status: 307, headers: { location: '/elsewhere' } } : undefined,
  );
  await (await pushTo(host)).upload(task, DIGEST, BLOB.length, () => BLOB);
  expect(posts().map(({ what }) => what)).toEqual(['POST /v2/a/b/blobs/uploads/', 'POST /elsewhere']);
  expect(put()).toHaveLength(1);
});

test.each([404, 416])('an upload that is forgotten, which is status %i, is begun anew', async (status) => {
  let refused = false;
  const { host, posts, put } = await registryThat((what) => {
    if (refused || !what.startsWith('PUT')) return undefined;
    refused = true;
    return { status, body: '{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}' };
  });
  await (await pushTo(host)).upload(task, DIGEST, BLOB.length, () => BLOB);
  expect([posts().length, put().length]).toEqual([2, 2]);
});

test('a blob is mounted from another repository with the right to read that', async () => {
  const { host, asked, posts } = await registryThat((what, request) => {
    const { searchParams, pathname } = new URL(request.url ?? '', 'http://x');
    if (pathname === '/token') {
      const token = searchParams.getAll('scope').join(';').replaceAll(':', '=');
      return { status: 200, body: JSON.stringify({ token }) };
    }
    const headers = {
      'www-authenticate': `Bearer realm="http://${request.headers.host}/token",scope="repository:a/b:pull"`,
    };
    if (request.headers.authorization === undefined) return { status: 401, headers };
    const mayMount = request.headers.authorization.includes('repository=base=pull');
    return what.startsWith('POST') && mayMount ? { status: 201 } : undefined;
  });
  const client = await pushTo(host);
  client.willMountFrom('base');
  expect(await client.stateOf(task, DIGEST, BLOB.length)).toBe('absent');
  expect(await client.mount(task, DIGEST, 'base')).toBe(true);
  expect(posts()).toHaveLength(1);
  expect(asked.filter(({ what }) => what.startsWith('GET /token'))).toHaveLength(1);
});

test('an upload that the registry begins instead of mounting is used', async () => {
  const { host, posts, put } = await registryThat(() => undefined);
  const client = await pushTo(host);
  expect(await client.mount(task, DIGEST, 'base')).toBe(false);
  await client.upload(task, DIGEST, BLOB.length, () => BLOB);
  expect(posts()).toHaveLength(1);
  expect(put()).toHaveLength(1);
});

test.each([
  [
    403,
    '{"errors":[{"code":"DENIED","message":"adding 1 MiB of storage resource will exceed the limit"}]}',
    'larger quota',
  ],
  [403, '{"errors":[{"code":"DENIED","message":"quota of the project is used up"}]}', 'larger quota'],
  [413, '<html>413 Request Entity Too Large</html>', 'raise its limit'],
])('where there is no room the error says so: %i %s', async (status, body, advice) => {
  const { host } = await registryThat((what) => (what.startsWith('PUT') ? { status, body } : undefined));
  const client = await pushTo(host);
  for (const push of [
    () => client.putManifest(task, '1', MANIFEST),
    () => client.upload(task, DIGEST, BLOB.length, () => BLOB),
  ]) {
    const { message } = await rejection(push(), 'REGISTRY_FAILED');
    expect(message).toContain(advice);
    expect(message).not.toContain('log in');
  }
});

test.each([
  [400, '{"errors":[{"code":"TAG_INVALID","message":"The tag 1 already exists"}]}', 'another tag'],
  [412, '{"errors":[{"code":"PRECONDITION","message":"configured as immutable"}]}', 'another tag'],
  [409, '{"message":"tag exists"}', 'another tag'],
  [405, '{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}', 'read-only'],
  [
    400,
    '{"errors":[{"code":"MANIFEST_INVALID","message":"unknown media type"}]}',
    'rejected it; its message says why',
  ],
])('what a registry refuses for good is no fault of the network: %i %s', async (status, body, advice) => {
  const { host } = await registryThat((what) => (what.startsWith('PUT') ? { status, body } : undefined));
  const client = await pushTo(host);
  const { message } = await rejection(client.putManifest(task, '1', MANIFEST), 'REGISTRY_FAILED');
  expect(message).toContain(advice);
  expect(message).not.toContain('check the network');
});

test.each([
  ['{"errors":[{"code":"X","message":"Y"}]}', ' (X: Y)'],
  ['{"message":"archived"}', ' (archived)'],
  ['{"detail":"archived"}', ' (archived)'],
  ['it is\u001b[2J archived\n', ' (it is [2J archived)'],
  ['<html>Bad Request</html>', ''],
  ['{"errors":[]}', ''],
])('of the answer %j the words are shown', async (body, shown) => {
  const { host } = await registryThat((what) => (what.startsWith('PUT') ? { status: 418, body } : undefined));
  const client = await pushTo(host);
  const { message } = await rejection(client.putManifest(task, '1', MANIFEST), 'REGISTRY_FAILED');
  expect(message).toContain(`status 418${shown};`);
});

test.each([400, 403, 412])(
  'a tag that may not be changed, and has the artifact already, is no failure: %i',
  async (status) => {
    let manifest: Buffer = Buffer.alloc(0);
    const { host, asked, put } = await registryThat((what) => {
      if (what.startsWith('PUT /v2/a/b/manifests/'))
        return { status, body: '{"errors":[{"code":"TAG_INVALID"}]}' };
      return what.startsWith('GET /v2/a/b/manifests/') ? { status: 200, body: `${manifest}` } : undefined;
    });
    const client = await pushTo(host);
    const reference = { host, repository: 'a/b', tag: '1', digest: undefined };
    const push = () => putArtifact(task, client, reference, NO_LAYERS);
    await expect(push()).rejects.toMatchObject({ message: expect.stringContaining(`status ${status}`) });
    manifest = asked.findLast(({ what }) => what.startsWith('PUT /v2/a/b/manifests/'))?.body ?? manifest;
    await expect(push()).resolves.toMatchObject({ sha256: NO_LAYERS.sha256 });
    expect(put().filter(({ what }) => what.includes('manifests'))).toHaveLength(2);
  },
);

test('an upload that is not known any more is told with the words of the registry', async () => {
  const body = '{"errors":[{"code":"NAME_UNKNOWN","message":"repository is archived"}]}';
  const { host } = await registryThat((what) => (what.startsWith('PUT') ? { status: 404, body } : undefined));
  const client = await pushTo(host);
  const call = client.upload(task, DIGEST, BLOB.length, () => BLOB);
  expect((await rejection(call, 'REGISTRY_FAILED')).message).toContain('repository is archived');
});
