// Who gets a login: the registry that it was stored for, and nobody else.
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type FaultyProxy, type Seen, startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import { Host } from '../fixtures/host.js';
import { run } from '../fixtures/images.js';
import { basic, logInTo } from '../fixtures/logins.js';
import { makeCertificate, startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs', 'htpasswd', 'openssl');
const PASSWORD = 'correct horse: battery';
const ANN = `ann:${PASSWORD}`;

/** A registry that wants `login` from whoever asks through the proxy. */
async function guarded(challenge: (proxy: FaultyProxy) => string, login: string) {
  const { host: registry } = await startOciRegistry();
  const a = await hostFor([registry]);
  const sha256 = await publishFiles(a, 'app', { megabytes: 2 });
  await a.registry.pushStack('app', `${registry}/app:1`);
  const proxy = await startFaultyProxy(registry);
  const refuse = { status: 401, headers: { 'www-authenticate': challenge(proxy) } };
  const guard = ({ headers }: Seen) => (headers.authorization === login ? undefined : refuse);
  proxy.rule = guard;
  return { registry, proxy, guard, sha256 };
}

const secretIn = (proxy: FaultyProxy) =>
  proxy.seen.filter(({ headers }) => headers.authorization !== undefined);

describe.skipIf(missing !== undefined)(
  `logins${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('a registry with htpasswd takes pushes and pulls of who is logged in, over checked TLS', async () => {
      const certificates = (await Host.in()).root;
      const at = (name: string) => join(certificates, name);
      const { ca, key } = await makeCertificate(certificates);
      await run('htpasswd', ['-Bbc', at('htpasswd'), 'ann', PASSWORD]);
      const { host: registry } = await startOciRegistry({
        scheme: 'https',
        config: `http: { addr: HOST, tls: { certificate: ${ca}, key: ${key} } }
auth: { htpasswd: { realm: here, path: ${at('htpasswd')} } }`,
      });
      const host = await Host.in(undefined, { registries: { [registry]: { ca } } });
      await publishFiles(host, 'app', { megabytes: 2 });
      const push = () => host.registry.pushStack('app', `${registry}/app:1`);
      await rejection(push(), 'REGISTRY_UNAUTHORIZED');
      await logInTo(host.root, { [registry]: ANN });
      await push();
      expect(await host.registry.pullStack(`${registry}/app:1`, { name: 'again' })).toMatchObject({
        name: 'again',
      });
      const unchecked = await Host.in();
      const error = await rejection(unchecked.registry.pullStack(`${registry}/app:1`), 'REGISTRY_FAILED');
      expect(error.message).toMatch(/certificate/i);
    });

    test('a login does not follow a redirect to another host', async () => {
      const { proxy, guard, sha256, registry } = await guarded(() => 'Basic realm="here"', basic(ANN));
      const storage = await startFaultyProxy(registry);
      const host = await hostFor([proxy.host, storage.host]);
      await logInTo(host.root, { [proxy.host]: ANN });
      proxy.rule = (request) =>
        request.method === 'GET' && request.url.includes('/blobs/')
          ? { status: 307, headers: { location: `http://${storage.host}${request.url}` } }
          : guard(request);
      expect(await host.registry.pullStack(`${proxy.host}/app:1`)).toMatchObject({ sha256 });
      expect(storage.seen.length).toBeGreaterThan(0);
      expect(secretIn(storage)).toEqual([]);
    });

    test('a token comes from the service that the registry names at its own address', async () => {
      const challenge = (proxy: FaultyProxy) => `Bearer realm="http://${proxy.host}/token",service="here"`;
      const { proxy, guard, sha256 } = await guarded(challenge, 'Bearer abc');
      const host = await hostFor([proxy.host]);
      await logInTo(host.root, { [proxy.host]: ANN });
      proxy.rule = (request) =>
        request.url.startsWith('/token') ? { status: 200, body: '{"token":"abc"}' } : guard(request);
      expect(await host.registry.pullStack(`${proxy.host}/app:1`)).toMatchObject({ sha256 });
      const [asked, ...more] = proxy.seen.filter(({ url }) => url.startsWith('/token'));
      expect(more).toEqual([]);
      expect(asked?.headers.authorization).toBe(basic(ANN));
      expect(asked?.url).toContain(`scope=${encodeURIComponent('repository:app:pull')}`);
    });

    test('a token service elsewhere is not asked unless it is named in realms', async () => {
      const other = await startFaultyProxy('127.0.0.1:9');
      const { proxy, sha256 } = await guarded(
        () => `Bearer realm="http://${other.host}/token"`,
        'Bearer abc',
      );
      const host = await hostFor([proxy.host, other.host]);
      await logInTo(host.root, { [proxy.host]: ANN });
      other.rule = () => ({ status: 200, body: '{"access_token":"abc"}' });
      const pull = (registries = host.registry.config.registries) =>
        host.anotherRegistry({ registries }).pullStack(`${proxy.host}/app:1`);
      expect((await rejection(pull(), 'REGISTRY_UNAUTHORIZED')).message).toContain('realms');
      expect(other.seen).toEqual([]);
      const registries = {
        [proxy.host]: { insecure: true, realms: [other.host] },
        [other.host]: { insecure: true },
      };
      expect(await pull(registries)).toMatchObject({ sha256 });
      for (const realm of [
        'https://169.254.169.254/token',
        'https://localhost/token',
        'https://[::1]/token',
        'x',
      ]) {
        const { proxy: hostile } = await guarded(() => `Bearer realm="${realm}"`, 'Bearer abc');
        await rejection(
          (await hostFor([hostile.host])).registry.pullStack(`${hostile.host}/app:1`),
          'REGISTRY_UNAUTHORIZED',
        );
      }
    });

    /** A registry with a login, a mirror of it without one, and a host that knows both. */
    async function withMirror() {
      const { proxy, registry, sha256 } = await guarded(() => 'Basic realm="here"', basic(ANN));
      const mirror = await startFaultyProxy(registry);
      const registries = {
        [proxy.host]: { insecure: true, mirrors: [mirror.host] },
        [mirror.host]: { insecure: true },
      };
      const host = await Host.in(undefined, { registries });
      await logInTo(host.root, { [proxy.host]: ANN });
      return { proxy, mirror, host, sha256 };
    }

    test('a mirror is asked first, without the login of the registry behind it', async () => {
      const { proxy, mirror, host, sha256 } = await withMirror();
      expect(await host.registry.pullStack(`${proxy.host}/app:1`)).toMatchObject({ sha256 });
      expect(proxy.seen).toEqual([]);
      expect(secretIn(mirror)).toEqual([]);
      // What the mirror does not have, or has damaged, comes from the registry.
      mirror.rule = ({ url }) => (url.includes('/blobs/') ? { flip: 40 } : undefined);
      expect(await host.registry.pullStack(`${proxy.host}/app:1`, { name: 'second' })).toMatchObject({
        sha256,
      });
      mirror.rule = () => ({ status: 404 });
      expect(await host.registry.pullStack(`${proxy.host}/app:1`, { name: 'third' })).toMatchObject({
        sha256,
      });
    });

    test.each([
      { status: 502 },
      { status: 503 },
      { status: 429, headers: { 'retry-after': '0' } },
      { cutAfter: 0 },
    ])('a mirror that always answers with %j costs two tries, not two for each blob', async (fault) => {
      const { proxy, mirror, host, sha256 } = await withMirror();
      mirror.rule = () => fault;
      expect(await host.registry.pullStack(`${proxy.host}/app:1`)).toMatchObject({ sha256 });
      expect(mirror.seen).toHaveLength(2);
      // It goes down after the manifest. Each request that is under way by then tries twice.
      mirror.seen.length = 0;
      mirror.rule = ({ url }) => (url.includes('/blobs/') ? fault : undefined);
      const again = { name: 'second', concurrency: 1 };
      expect(await host.registry.pullStack(`${proxy.host}/app:1`, again)).toMatchObject({ sha256 });
      expect(mirror.seen.filter(({ url }) => url.includes('/blobs/'))).toHaveLength(2);
    });

    test('no error tells a password', async () => {
      const { proxy } = await guarded(() => 'Basic realm="here"', 'Basic other');
      const host = await hostFor([proxy.host]);
      await logInTo(host.root, { [proxy.host]: ANN });
      const error = await rejection(host.registry.pullStack(`${proxy.host}/app:1`), 'REGISTRY_UNAUTHORIZED');
      const told = JSON.stringify([error.message, String(error.cause), error.stack]);
      expect(told).not.toContain(PASSWORD);
      expect(told).not.toContain(basic(ANN).slice('Basic '.length));
    });
  },
);
