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

const wantsLogin: http.RequestListener = (_, response) => {
  response.writeHead(401, { 'www-authenticate': 'Basic realm="here"' }).end();
};

/** Answers by TLS, with a certificate that signs itself. */
async function secured(answer = wantsLogin) {
  const { root } = await Host.in();
  const { ca, key } = await makeCertificate(root);
  let asked = 0;
  const server = https.createServer(
    { cert: await readFile(ca), key: await readFile(key) },
    (request, response) => {
      asked++;
      answer(request, response);
    },
  );
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

/** Ways in which a registry may have a login or skopeo sent to `service`, which speaks plain HTTP. */
const TRICKS: readonly (readonly [string, (service: string) => http.RequestListener])[] = [
  [
    'names it with status 200',
    (service) =>
      ({ url }, response) => {
        const challenge = { 'www-authenticate': `Bearer realm="http://${service}/token",service="s"` };
        response.writeHead(url === '/v2/' ? 200 : 401, challenge).end('{}');
      },
  ],
  [
    'names two',
    (service) =>
      ({ headers: { host } }, response) => {
        const realms = `realm="https://${host}/token",service="s",realm="http://${service}/token"`;
        response.writeHead(401, { 'www-authenticate': `Bearer ${realms}` }).end('{}');
      },
  ],
  [
    'names its own, which redirects',
    (service) =>
      ({ url = '', headers: { host } }, response) => {
        if (url.startsWith('/token')) response.writeHead(302, { location: `http://${service}/secret` }).end();
        else {
          const challenge = { 'www-authenticate': `Bearer realm="https://${host}/token",service="s"` };
          response.writeHead(401, challenge).end('{}');
        }
      },
  ],
  [
    'names it to skopeo only',
    (service) =>
      ({ headers }, response) => {
        const isOurs = headers['user-agent'] === 'microvm-rootfs';
        const challenge = isOurs
          ? 'Basic realm="here"'
          : `Bearer realm="http://${service}/token",service="s"`;
        response.writeHead(401, { 'www-authenticate': challenge }).end('{}');
      },
  ],
  [
    'names it to skopeo, and does not answer us',
    (service) =>
      ({ headers, socket }, response) => {
        if (headers['user-agent'] === 'microvm-rootfs') return void socket.destroy();
        const challenge = { 'www-authenticate': `Bearer realm="http://${service}/token",service="s"` };
        response.writeHead(401, challenge).end('{}');
      },
  ],
];

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
      const credentials = { username: 'ann', password: 'secret' };
      expect(await checkRegistry(named, task, registry, 'a/b', false)).toMatchObject({ credentials });
    });

    test.each(TRICKS)('%s: no login and no request gets there', async (_, answerFor) => {
      let asked = 0;
      const service = await serve((_request, response) => {
        asked++;
        response.end('{"token":"T"}');
      });
      const { host: registry, ca, asked: wasAsked } = await secured(answerFor(service));
      const host = await Host.in(undefined, { registries: { [registry]: { ca } } });
      await logInTo(host.root, { [registry]: 'ann:secret' });
      const published = host.registry.publishStack('app', `docker://${registry}/a/b:1`);
      const { code, message } = await published.then(
        () => ({ code: 'published', message: '' }),
        (error) => error,
      );
      expect(code).toMatch(/^REGISTRY_(UNAUTHORIZED|FAILED)$/);
      expect(message).not.toMatch(/secret/);
      expect(wasAsked()).toBeGreaterThan(0);
      expect(asked).toBe(0);
    });

    test('cannot be checked: skopeo gets no login, and the message says why', async () => {
      const { host: registry } = await secured();
      const { root } = await Host.in();
      await logInTo(root, { [registry]: 'ann:secret' });
      const access = await check(registry, {});
      expect(access).toMatchObject({ credentials: undefined, token: undefined, mayPass: false });
      expect(access.trouble).toContain('no login was sent');
      expect(access.trouble).toContain(`registries['${registry}'].ca`);
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
      expect(await check(registry, { insecure: true, ca })).toMatchObject({ isPlain: false });
      expect(await check(registry, {})).toMatchObject({ isPlain: false });
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
      expect(await check(plain, { insecure: true })).toMatchObject({ isPlain: true });
      expect(await check(plain, {})).toMatchObject({ isPlain: false });
      const silent = await listening(createServer((socket) => socket.on('error', () => {}).destroy()));
      const asked = checkRegistry({ [silent]: { insecure: true } }, task, silent, 'a/b', true);
      await rejection(asked, 'REGISTRY_FAILED');
    });
  },
);
