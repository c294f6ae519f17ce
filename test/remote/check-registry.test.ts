// What a registry must be before skopeo gets a login for it.
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { createServer, type Server } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { checkRegistry } from '../../src/remote/check-registry.js';
import type { RegistrySetting } from '../../src/system/registry-settings.js';
import { Task } from '../../src/system/task.js';
import { serve } from '../fixtures/fake-registry.js';
import { hostFor } from '../fixtures/fleet.js';
import { Host } from '../fixtures/host.js';
import { logInTo } from '../fixtures/logins.js';
import { makeCertificate } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const missing = lacksRoot() ?? lacks('skopeo', 'openssl');
const task = new Task('checking', undefined);

/** Wants a login, by TLS with a certificate that signs itself. */
async function secured() {
  const { root } = await Host.in();
  const { ca, key } = await makeCertificate(root);
  let asked = 0;
  const server = https.createServer({ cert: await readFile(ca), key: await readFile(key) }, (_, response) => {
    asked++;
    response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
  });
  return { host: await listening(server), ca, asked: () => asked };
}

async function listening(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    if (server instanceof http.Server || server instanceof https.Server) server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

const check = (host: string, setting: RegistrySetting) =>
  checkRegistry({ [host]: setting }, task, host, 'a/b', false);

describe.skipIf(missing !== undefined)(
  `a registry for skopeo${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 60_000 },
  () => {
    test('names a token service that may not be asked: skopeo gets no login', async () => {
      let asked = 0;
      const service = await serve((_, response) => {
        asked++;
        response.end('{"token":"T"}');
      });
      const registry = await serve((_, response) => {
        const challenge = `Basic realm="x", Bearer realm="http://${service}/token",service="s"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end();
      });
      const host = await hostFor([registry]);
      await logInTo(host.root, { [registry]: 'ann:secret' });
      const published = host.registry.publishStack('app', `docker://${registry}/a/b:1`);
      expect((await rejection(published, 'REGISTRY_UNAUTHORIZED')).message).toContain('to realms in');
      expect(asked).toBe(0);
      const named = { [registry]: { insecure: true, realms: [service] }, [service]: { insecure: true } };
      expect(await checkRegistry(named, task, registry, 'a/b', false)).toEqual({ isPlain: true });
    });

    test('is insecure and knows TLS: the certificate is checked before the login is sent', async () => {
      const { host: registry, ca, asked } = await secured();
      const host = await hostFor([registry]);
      await logInTo(host.root, { [registry]: 'ann:secret' });
      const published = host.registry.publishStack('app', `docker://${registry}/a/b:1`);
      expect((await rejection(published, 'REGISTRY_FAILED')).message).toContain(
        'set ca in config.registries',
      );
      expect(asked()).toBe(0);
      expect(await check(registry, { insecure: true, ca })).toEqual({ isPlain: false });
      expect(await check(registry, {})).toEqual({ isPlain: false });
    });

    test('repeats the login, and names storage by a signed URL: neither is in the message', async () => {
      const registry = await serve(({ url, headers: { authorization } }, response) => {
        const isRefused = authorization === undefined;
        if (isRefused) response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
        else if (url === '/v2/') response.end();
        else {
          const message = `${authorization} is ann:secret at https://s3.example/x?X-Sig=SIGNATURE`;
          response.writeHead(403).end(JSON.stringify({ errors: [{ code: 'DENIED', message }] }));
        }
      });
      const host = await hostFor([registry]);
      await logInTo(host.root, { [registry]: 'ann:secret' });
      const published = host.registry.publishStack('app', `docker://${registry}/a/b:1`);
      const { message } = await rejection(published, 'REGISTRY_UNAUTHORIZED');
      expect(message).toContain('Basic [hidden] is [hidden] at https://s3.example/x');
      expect(message).not.toMatch(/SIGNATURE|secret|YW5uOnNlY3JldA/);
    });

    test('is reached by plain HTTP only if it is insecure, and answers', async () => {
      const plain = await serve((_, response) => void response.end());
      expect(await check(plain, { insecure: true })).toEqual({ isPlain: true });
      expect(await check(plain, {})).toEqual({ isPlain: false });
      const silent = await listening(createServer((socket) => socket.on('error', () => {}).destroy()));
      const asked = checkRegistry({ [silent]: { insecure: true } }, task, silent, 'a/b', true);
      await rejection(asked, 'REGISTRY_FAILED');
    });
  },
);
