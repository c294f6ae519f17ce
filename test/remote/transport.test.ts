// How a registry is reached: through proxies, and when it falls silent.
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { connectionFailed } from '../../src/remote/connection-errors.js';
import { proxyFor } from '../../src/remote/proxy.js';
import { Transient } from '../../src/remote/retry.js';
import { discard, type HttpRequest, readAll, Transport } from '../../src/remote/transport.js';
import { RootfsError } from '../../src/system/errors.js';
import { Task } from '../../src/system/task.js';
import { serve } from '../fixtures/fake-registry.js';
import { exists } from '../fixtures/files.js';
import { publishFiles } from '../fixtures/fleet.js';
import { Host } from '../fixtures/host.js';
import { freePort, makeCertificate, startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const missing = lacks('docker-registry', 'tinyproxy', 'openssl', 'zstd', 'mke2fs');

test.each([
  ['https://registry.example/v2/', '', 'http://secure:2'],
  ['http://registry.example/v2/', '', 'http://plain:1'],
  ['https://registry.example/v2/', '*', undefined],
  ['https://registry.example/v2/', 'other.example,example', undefined],
  ['https://registry.example/v2/', '.example', undefined],
  ['https://registry.example/v2/', 'registry.example:443', undefined],
  ['https://registry.example:5000/v2/', 'registry.example:443', 'http://secure:2'],
  ['https://registry.example/v2/', 'try.example', 'http://secure:2'],
  ['http://[::1]:5000/v2/', '::1', undefined],
  ['http://127.0.0.1:5000/v2/', 'localhost, 127.0.0.1', undefined],
])('%s with NO_PROXY=%s goes by %s', (url, noProxy, expected) => {
  const env = { http_proxy: 'plain:1', HTTPS_PROXY: 'http://secure:2', NO_PROXY: noProxy };
  expect(proxyFor(new URL(url), env)?.origin).toBe(expected);
});

test('a registry that falls silent is a failure that may pass, not a wait without end', async () => {
  for (const answer of ['', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.']) {
    const server = createServer((socket) => void socket.on('error', () => {}).write(answer));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as { port: number };
    const transport = new Transport({}, 200);
    onTestFinished(() => transport.close());
    const task = new Task('asking', undefined);
    const question = { url: new URL(`http://127.0.0.1:${port}/`), method: 'GET' } as const;
    const asked = transport.send(task, question).then((answered) => readAll(answered, 1000));
    await expect(asked).rejects.toBeInstanceOf(Transient);
  }
});

test('a body of a byte now and then is a failure that may pass, and nobody waits for its end', async () => {
  const host = await serve((_, response) => {
    const dripping = setInterval(() => response.write('.'), 20);
    response.on('close', () => clearInterval(dripping));
  });
  const transport = new Transport({}, 1000, 300);
  onTestFinished(() => transport.close());
  const question = { url: new URL(`http://${host}/`), method: 'GET' } as const;
  const answer = () => transport.send(new Task('asking', undefined), question);
  const { error } = await readAll(await answer(), 1e6).catch((thrown) => thrown);
  expect(error.message).toMatch(/only \d+ bytes came in 0.3 s/);
  await discard(await answer());
});

test('a head of a byte now and then, and interim responses without end, are failures that may pass', async () => {
  for (const drop of ['x', 'HTTP/1.1 102 Processing\r\n\r\n']) {
    const server = createServer((socket) => {
      const dripping = setInterval(() => socket.write(drop), 20);
      socket.on('error', () => {}).on('close', () => clearInterval(dripping));
      if (drop === 'x') socket.write('HTTP/1.1 200 OK\r\nx: ');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const transport = new Transport({}, 1000, 300);
    onTestFinished(() => transport.close());
    const url = new URL(`http://127.0.0.1:${(server.address() as { port: number }).port}/`);
    for (const question of [
      { method: 'GET' },
      { method: 'PUT', body: 'blob', slowResponse: true },
    ] as const) {
      const { error } = await transport
        .send(new Task('asking', undefined), { url, ...question })
        .catch((thrown) => thrown);
      expect(error.message).toContain('no whole head of a response came in 0.3 s');
    }
  }
});

test('a reader that is slow is not taken for a slow registry', async () => {
  const host = await serve((_, response) => {
    response.write('.');
    setTimeout(() => response.end('.'), 50);
  });
  const transport = new Transport({}, 1000, 300);
  onTestFinished(() => transport.close());
  const question = { url: new URL(`http://${host}/`), method: 'GET' } as const;
  const { parts } = await transport.send(new Task('asking', undefined), question);
  let length = 0;
  for await (const part of parts) {
    length += part.length;
    await sleep(400);
  }
  expect(length).toBe(2);
});

test('the answer to an upload, and the first byte of a blob, may take minutes', async () => {
  const host = await serve(async (request, response) => {
    await buffer(request);
    await sleep(1000);
    response.end('ok');
  });
  const transport = new Transport({}, 200, 30_000);
  onTestFinished(() => transport.close());
  const url = new URL(`http://${host}/`);
  const ask = async (question: Pick<HttpRequest, 'method' | 'body' | 'slowResponse'>) =>
    `${await readAll(await transport.send(new Task('asking', undefined), { url, ...question }), 1000)}`;
  expect(await ask({ method: 'GET', slowResponse: true })).toBe('ok');
  expect(await ask({ method: 'PUT', slowResponse: true, body: Buffer.from('blob') })).toBe('ok');
  expect(await ask({ method: 'PUT', slowResponse: true, body: Readable.from(['blob']) })).toBe('ok');
  await expect(ask({ method: 'GET' })).rejects.toBeInstanceOf(Transient);
});

test('an address that is far away has seconds to answer, also where a host has several', async () => {
  const connect = vi.spyOn(http.Agent.prototype, 'createConnection');
  onTestFinished(() => connect.mockRestore());
  const host = await serve((_, response) => void response.end());
  const transport = new Transport({}, 1000);
  onTestFinished(() => transport.close());
  const question = { url: new URL(`http://${host}/`), method: 'GET' } as const;
  await readAll(await transport.send(new Task('asking', undefined), question), 1000);
  expect(connect.mock.calls[0]?.[0]).toMatchObject({ autoSelectFamilyAttemptTimeout: 2500 });
});

test('of a host of which no address answers, each address is named', () => {
  const each = ['connect ETIMEDOUT 192.0.2.1:443', 'connect ENETUNREACH 2001:db8::1:443'];
  const error = Object.assign(new AggregateError(each.map((words) => new Error(words))), {
    code: 'ETIMEDOUT',
  });
  const failure = connectionFailed(new URL('https://far.example/v2/'), error) as Transient;
  expect(failure.message).toContain(`https://far.example/v2/: ${each.join('; ')}; check`);
});

test('the password of a proxy goes to the proxy, and not to the registry behind it', async () => {
  const seen: http.IncomingHttpHeaders[] = [];
  const proxy = http.createServer(({ headers }, response) => {
    seen.push(headers);
    response.end();
  });
  await new Promise<void>((listening) => proxy.listen(0, '127.0.0.1', listening));
  onTestFinished(() => void proxy.close());
  const { port } = proxy.address() as { port: number };
  const before = process.env.http_proxy;
  onTestFinished(() => {
    if (before === undefined) delete process.env.http_proxy;
    else process.env.http_proxy = before;
  });
  process.env.http_proxy = `http://us%er:p%40ss@127.0.0.1:${port}`;
  const transport = new Transport({}, 1000);
  onTestFinished(() => transport.close());
  const url = new URL('http://registry.example/v2/');
  await readAll(await transport.send(new Task('asking', undefined), { url, method: 'GET' }), 1000);
  expect(seen).toMatchObject([
    {
      'proxy-authorization': `Basic ${Buffer.from('us%er:p@ss').toString('base64')}`,
      host: 'registry.example',
    },
  ]);
  expect(seen[0]).not.toHaveProperty('authorization');
});

test('a connection that the registry closed while it lay idle is no failure', async () => {
  let connections = 0;
  const server = createServer((socket) => {
    const ends = ++connections === 1;
    socket.on('error', () => {});
    let requests = 0;
    socket.on('data', () => {
      if (ends && ++requests === 2) socket.resetAndDestroy();
      else socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
    });
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  onTestFinished(() => void server.close());
  const { port } = server.address() as { port: number };
  const transport = new Transport({}, 1000);
  onTestFinished(() => transport.close());
  const question = { url: new URL(`http://127.0.0.1:${port}/`), method: 'GET' } as const;
  for (let i = 0; i < 3; i++) {
    const body = await readAll(await transport.send(new Task('asking', undefined), question), 1000);
    expect(body.toString()).toBe('ok');
  }
  expect(connections).toBe(2);
});

test('what must be public is not asked by a connection to elsewhere, nor by a proxy', async () => {
  const asked: (string | undefined)[] = [];
  const host = await serve((request, response) => {
    asked.push(request.url);
    response.end('ok');
  });
  const transport = new Transport({}, 1000);
  onTestFinished(() => transport.close());
  const ask = async (path: string, publicOnly: boolean) => {
    const url = new URL(path, `http://localhost:${host.split(':')[1]}`);
    return readAll(
      await transport.send(new Task('asking', undefined), { url, method: 'GET', publicOnly }),
      9,
    );
  };
  await ask('/direct', false);
  expect((await rejection(ask('/pooled', true), 'REGISTRY_FAILED')).message).toContain('no public address');
  process.env.http_proxy = `http://${host}`;
  onTestFinished(() => void delete process.env.http_proxy);
  expect((await rejection(ask('/by-proxy', true), 'REGISTRY_FAILED')).message).toContain('no public address');
  expect(asked).toEqual(['/direct']);
});

test.each([
  ['SELF_SIGNED_CERT_IN_CHAIN', "registries['r.example'].ca"],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', "registries['r.example'].ca"],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', "registries['r.example'].ca"],
  ['CERT_HAS_EXPIRED', "check this host's clock"],
  ['CERT_NOT_YET_VALID', "check this host's clock"],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'use a name that is in the certificate'],
  ['CERT_REVOKED', 'check the network'],
])('%s is final, and has the advice: %s', (code, advice) => {
  const error = Object.assign(new Error('a certificate'), { code });
  const failed = connectionFailed(new URL('https://r.example/v2/'), error) as Error;
  expect(failed).toBeInstanceOf(RootfsError);
  expect(failed.message).toContain(advice);
  expect(failed.message.includes('check the network')).toBe(advice === 'check the network');
});

test('a registry without TLS is named for what it is', async () => {
  const server = http.createServer((_, response) => response.end());
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  onTestFinished(() => void server.close());
  const { port } = server.address() as { port: number };
  const transport = new Transport({}, 1000);
  onTestFinished(() => transport.close());
  const question = { url: new URL(`https://127.0.0.1:${port}/v2/`), method: 'GET' } as const;
  const { message } = await rejection(
    transport.send(new Task('asking', undefined), question),
    'REGISTRY_FAILED',
  );
  expect(message).toContain(
    `it does not use TLS: if that is intended, set registries['127.0.0.1:${port}'].insecure`,
  );
});

describe.skipIf(missing !== undefined)(
  `behind a proxy${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test.each(['http', 'https'] as const)('a stack is pushed and pulled by %s', async (scheme) => {
      const { root } = await Host.in();
      const { ca, key } = await makeCertificate(root);
      const config = `http: { addr: HOST, tls: { certificate: ${ca}, key: ${key} } }`;
      const { host: registry } = await startOciRegistry(scheme === 'https' ? { scheme, config } : {});
      const log = await startTinyproxy(root);
      const setting = scheme === 'https' ? { ca } : { insecure: true };
      const host = await Host.in(undefined, { registries: { [registry]: setting } });
      const sha256 = await publishFiles(host, 'app', { megabytes: 2 });
      await host.registry.pushStack('app', `${registry}/app:1`);
      expect(await host.registry.pullStack(`${registry}/app:1`, { name: 'again' })).toMatchObject({ sha256 });
      expect(await readFile(log, 'utf8')).toContain(
        scheme === 'https' ? `CONNECT ${registry}` : `http://${registry}`,
      );
    });
  },
);

/** Resolves to its log. The environment of this process names it. */
async function startTinyproxy(folder: string): Promise<string> {
  const port = await freePort();
  const log = join(folder, 'proxy.log');
  const config = join(folder, 'proxy.conf');
  await writeFile(
    config,
    `Port ${port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nLogFile "${log}"\nLogLevel Connect\n`,
  );
  const child = spawn('tinyproxy', ['-d', '-c', config], { stdio: 'ignore' });
  const names = ['http_proxy', 'https_proxy', 'no_proxy', 'NO_PROXY'];
  const before = names.map((name) => [name, process.env[name]] as const);
  onTestFinished(() => {
    child.kill('SIGKILL');
    for (const [name, value] of before)
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  });
  for (const name of ['http_proxy', 'https_proxy']) process.env[name] = `http://127.0.0.1:${port}`;
  for (const name of ['no_proxy', 'NO_PROXY']) delete process.env[name];
  for (let tries = 0; tries < 250 && !(await exists(log)); tries++) await sleep(20);
  await sleep(100);
  return log;
}
