// What a registry answers, and how that is taken. Storage that it redirects to gets no login, and cannot say where the
// registry's login is to go.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { blobOf } from '../../src/remote/artifact.js';
import { BlobReader } from '../../src/remote/blob-reader.js';
import { fetchBlob } from '../../src/remote/fetch-blob.js';
import type { RegistryClient } from '../../src/remote/registry-client.js';
import { Transient } from '../../src/remote/retry.js';
import { RootfsError } from '../../src/system/errors.js';
import { Task } from '../../src/system/task.js';
import { clientOf, serve } from '../fixtures/fake-registry.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { turnsDuring } from '../fixtures/turns.js';

const task = new Task('asking', undefined);
const DIGEST = `sha256:${'0'.repeat(64)}`;

test.each([401, 403])('storage that answers %i is not asked again with a login', async (status) => {
  const asked: string[] = [];
  const storage = await serve((request, response) => {
    asked.push(`${request.url} ${request.headers.authorization}`);
    const realm = `Bearer realm="http://${request.headers.host}/token",service="x"`;
    response.writeHead(status, { 'www-authenticate': realm }).end();
  });
  const registry = await serve((_, response) => {
    response.writeHead(307, { location: `http://${storage}/blob` }).end();
  });
  const client = await clientOf(registry, { others: [storage] });
  const error = await client.openBlob(task, DIGEST, 0, 10, 10).catch((reason: unknown) => reason);
  expect(asked).toEqual(['/blob undefined']);
  // The registry gives another address when it is asked again.
  expect(error).toBeInstanceOf(Transient);
  expect((error as Transient).error.code).toBe('REGISTRY_FAILED');
});

test('a busy mirror does not slow down the requests to the registry itself', async () => {
  const clients = [true, false].map(async (isMirror) => {
    let asked = 0;
    const host = await serve((_, response) => {
      if (isMirror || ++asked === 1) response.writeHead(503).end();
      else response.end('0123456789');
    });
    return clientOf(host, { isMirror });
  });
  const [mirror, origin] = (await Promise.all(clients)) as [RegistryClient, RegistryClient];
  let busy = 0;
  const reader = new BlobReader([mirror, origin], { onBusy: () => busy++ });
  for await (const _ of reader.read(task, { digest: DIGEST, size: 10 }, 0, 10));
  expect([mirror.isDown, origin.isDown, busy]).toEqual([true, false, 1]);
});

test.each([
  ['without Retry-After', () => undefined, 240],
  ['with a date of Retry-After', () => new Date(Date.now() + 3000), 1500],
  ['with a date that is past', () => new Date(0), 240],
])('after 429 %s the registry is left alone for a while', async (_, date, ms) => {
  const asked: number[] = [];
  const registry = await serve((_, response) => {
    asked.push(performance.now());
    const retryAfter = date()?.toUTCString();
    const headers = retryAfter === undefined ? {} : { 'retry-after': retryAfter };
    response.writeHead(asked.length === 1 ? 429 : 404, headers).end();
  });
  expect(await (await clientOf(registry)).stateOf(task, DIGEST, 10)).toBe('absent');
  const [first = 0, second = 0] = asked;
  expect(second - first).toBeGreaterThan(ms);
});

test('answers of one byte each come to an end', { timeout: 120_000 }, async () => {
  let requests = 0;
  const registry = await serve((request, response) => {
    requests++;
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? 'bytes=0-')?.[1]);
    const headers = { 'content-range': `bytes ${from}-9999/10000`, 'content-length': `${10_000 - from}` };
    response.writeHead(from === 0 && request.headers.range === undefined ? 200 : 206, headers);
    response.write('x', () => response.destroy());
  });
  const reader = new BlobReader([await clientOf(registry)]);
  const read = async () => {
    for await (const _ of reader.read(task, { digest: DIGEST, size: 10_000 }, 0, 10_000));
  };
  const error = await read().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(RootfsError);
  expect(requests).toBeLessThan(10);
});

test('a body that does not end when all of it has come is not waited for', async () => {
  const registry = await serve(async (_, response) => {
    response.writeHead(206, { 'content-range': 'bytes 0-9/10' });
    response.write('0123456789');
    for (let i = 0; i < 100 && !response.destroyed; i++) {
      await sleep(100);
      response.write('x');
    }
    response.end();
  });
  const reader = new BlobReader([await clientOf(registry)]);
  const started = performance.now();
  const parts: Buffer[] = [];
  for await (const { bytes } of reader.read(task, { digest: DIGEST, size: 10 }, 0, 10)) parts.push(bytes);
  expect(Buffer.concat(parts).toString()).toBe('0123456789');
  expect(performance.now() - started).toBeLessThan(5000);
});
test('a blob that is gone is a part that the registry has lost', async () => {
  const registry = await serve((_, response) => void response.writeHead(404).end());
  const read = readAll(await clientOf(registry));
  expect((await rejection(read, 'REGISTRY_NOT_FOUND')).message).toContain('push it again');
});

test.each([400, 403, 404, 425])(
  'a blob that is refused once, with %i, is asked for again',
  async (status) => {
    let asked = 0;
    const registry = await serve((_, response) => {
      if (++asked === 1) response.writeHead(status).end();
      else response.end('0123456789');
    });
    expect(await readAll(await clientOf(registry))).toBe('0123456789');
  },
);

test.each([
  [206, {}],
  [206, { 'content-range': 'bytes 5-9/10' }],
  [206, { 'content-type': 'multipart/byteranges; boundary=X' }],
  [200, { 'content-encoding': 'gzip' }],
])(
  'a blob that came with %i and %j twice is asked for again, three times in all',
  async (status, headers) => {
    for (const oddTimes of [2, 3]) {
      let asked = 0;
      const registry = await serve((_, response) => {
        if (++asked > oddTimes) response.end('0123456789');
        else response.writeHead(status, headers).end('56789');
      });
      const read = readAll(await clientOf(registry));
      if (oddTimes === 2) expect(await read).toBe('0123456789');
      else await rejection(read, 'REGISTRY_FAILED');
      expect(asked).toBe(3);
    }
  },
);

test('a part of a range that was asked for is followed by the next without a pause', async () => {
  const part = 64 * 1024;
  const size = 40 * part;
  const registry = await serve((request, response) => {
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? 'bytes=0-')?.[1]);
    response.writeHead(206, { 'content-range': `bytes ${from}-${from + part - 1}/${size}` });
    response.end(Buffer.alloc(part));
  });
  const started = performance.now();
  expect(await readAll(await clientOf(registry), size)).toHaveLength(size);
  // Each pause takes 250 ms or more: 39 of them are 10 s.
  expect(performance.now() - started).toBeLessThan(8000);
});

test('403 with Retry-After is a busy registry, and storage that knows a signature no more is asked anew', async () => {
  const refusals = [{ 'retry-after': '0' }, {}];
  for (const [i, status] of [403, 400].entries()) {
    let asked = 0;
    const storage = await serve((_, response) => {
      if (++asked === 1) response.writeHead(status, refusals[i]).end();
      else response.end('0123456789');
    });
    const registry = await serve((_, response) => {
      response.writeHead(307, { location: `http://${storage}/blob` }).end();
    });
    expect(await readAll(await clientOf(registry, { others: [storage] }))).toBe('0123456789');
  }
  const busy = await serve((_, response) => void response.writeHead(403, { 'retry-after': '0' }).end());
  const error = await (await clientOf(busy)).openBlob(task, DIGEST, 0, 10, 10).catch((reason) => reason);
  expect([error.isBusy, error.error.code]).toEqual([true, 'REGISTRY_BUSY']);
});

async function readAll(client: RegistryClient, size = 10): Promise<string> {
  const parts: Buffer[] = [];
  for await (const { bytes } of new BlobReader([client]).read(task, { digest: DIGEST, size }, 0, size))
    parts.push(bytes);
  return Buffer.concat(parts).toString();
}

test('what has come of a blob while this process was busy is taken over many turns of the event loop', async () => {
  async function* body() {
    for (let i = 0; i < 64; i++) yield Buffer.alloc(64 * 1024);
  }
  const stream = { start: 0, body: body(), close: () => {} };
  const client = { isDown: false, openBlob: async () => stream } as unknown as RegistryClient;
  const { turns, result } = await turnsDuring(() => readAll(client, 4 * MiB));
  expect(result).toHaveLength(4 * MiB);
  expect(turns).toBeGreaterThan(50);
});

test.each(['', 'identity', 'Identity'])('a blob with the content encoding %j is taken', async (encoding) => {
  const registry = await serve((_, response) => {
    response.writeHead(200, { 'content-encoding': encoding }).end('0123456789');
  });
  const { start, close } = await (await clientOf(registry)).openBlob(task, DIGEST, 0, 10, 10);
  close();
  expect(start).toBe(0);
});

test('what a registry repeats of its login, and storage of its signature, is in no message', async () => {
  const storage = await serve((request, response) => {
    response.writeHead(400).end(`not at http://${request.headers.host}${request.url}: SIGNATURE`);
  });
  const registry = await serve(({ url, headers: { authorization } }, response) => {
    if (authorization === undefined)
      response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
    else if (url?.includes('/blobs/'))
      response.writeHead(307, { location: `http://${storage}/blob?X-Sig=SIGNATURE` }).end();
    else
      response.writeHead(403).end(`no: ${authorization} is ${Buffer.from(authorization.slice(6), 'base64')}`);
  });
  const client = await clientOf(registry, { others: [storage] });
  const { message } = await rejection(client.manifest(task, '1'), 'REGISTRY_UNAUTHORIZED');
  expect(message).toContain('(no: [hidden] is [hidden])');
  const refused = await client.openBlob(task, DIGEST, 0, 10, 10).catch(({ error }: Transient) => error);
  expect((refused as RootfsError).message).toContain(`(not at http://${storage}/blob`);
  expect((refused as RootfsError).message).not.toContain('SIGNATURE');
});

test.each([403, 404])(
  'a registry that says %i to strangers is asked once for a login, and then again',
  async (status) => {
    for (const isPrivate of [true, false]) {
      const asked: string[] = [];
      const registry = await serve(({ url = '', headers: { authorization } }, response) => {
        asked.push(`${url} ${authorization === undefined ? 'stranger' : 'login'}`);
        if (authorization !== undefined) response.end('{}');
        else if (url === '/v2/' && isPrivate)
          response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
        else response.writeHead(url === '/v2/' ? 200 : status).end();
      });
      const client = await clientOf(registry);
      const manifests = [client.manifest(task, '1'), client.manifest(task, '2')];
      const found = (await Promise.allSettled(manifests)).map(
        (each) => each.status === 'fulfilled' && each.value,
      );
      expect(found.filter(Boolean)).toHaveLength(isPrivate ? 2 : 0);
      expect(asked.filter((each) => each.startsWith('/v2/ '))).toEqual(['/v2/ stranger']);
    }
  },
);

test('a size in a manifest that is not that of the blob is the fault of the artifact', async () => {
  const blob = Buffer.from('0123456789');
  const registry = await serve(({ headers: { range } }, response) => {
    if (range === undefined) response.end(blob);
    else response.writeHead(416).end();
  });
  const layer = { mediaType: 'x', annotations: {}, ...blobOf(blob), size: 20 };
  const fetched = fetchBlob(task, new BlobReader([await clientOf(registry)]), layer);
  expect((await rejection(fetched, 'ARTIFACT_INVALID')).message).toContain('a size of 20 for a blob of 10');
});
