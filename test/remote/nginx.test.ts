// nginx before a registry: blobs lie at another host, as with registries whose blobs lie in object storage.
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import { Host } from '../fixtures/host.js';
import { run } from '../fixtures/images.js';
import { basic, logInTo } from '../fixtures/logins.js';
import { type Nginx, startNginx } from '../fixtures/nginx.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs', 'nginx', 'htpasswd');
const LOGIN = 'ann:correct horse';

/** The first server wants a login, and redirects whoever asks for a blob to the second. */
async function registryWithStorage(status = 307): Promise<{ nginx: Nginx; sha256: string }> {
  const { host: registry } = await startOciRegistry();
  const builder = await hostFor([registry]);
  const sha256 = await publishFiles(builder, 'app', { megabytes: 6 });
  await builder.registry.pushStack('app', `${registry}/app:1`);
  const passwords = join(builder.root, 'passwords');
  await run('htpasswd', ['-bc', passwords, ...LOGIN.split(':')]);
  const toRegistry = `location / { proxy_pass http://${registry}; proxy_set_header Authorization ""; }`;
  const nginx = await startNginx([
    `auth_basic registry; auth_basic_user_file ${passwords}; ${toRegistry}
    location ~ ^/v2/.+/blobs/ { return ${status} http://HOST1$request_uri; }`,
    toRegistry,
  ]);
  return { nginx, sha256 };
}

describe.skipIf(missing !== undefined)(
  `blobs at another host${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test.each([302, 307])('status %i: the other host gets no login', async (status) => {
      const { nginx, sha256 } = await registryWithStorage(status);
      const [front = '', storage = ''] = nginx.hosts;
      const host = await hostFor([front, storage]);
      await rejection(host.registry.pullStack(`${front}/app:1`), 'REGISTRY_UNAUTHORIZED');
      // Also one for the other host: that is for those who ask it by its own name.
      await logInTo(host.root, { [front]: LOGIN, [storage]: LOGIN });
      expect(await host.registry.pullStack(`${front}/app:1`)).toMatchObject({ sha256 });

      const requests = await nginx.requests();
      const blobs = (from: string) =>
        requests.filter(({ host, path }) => host === from && path.includes('/blobs/'));
      expect(blobs(front).length).toBeGreaterThan(1);
      expect(blobs(front).map(({ authorization }) => authorization)).toContain(basic(LOGIN));
      expect(blobs(storage).length).toBe(blobs(front).length);
      expect(new Set(blobs(storage).map(({ authorization }) => authorization))).toEqual(new Set(['-']));
    });

    test('parts of blobs come from there too', async () => {
      const { nginx } = await registryWithStorage();
      const [front = '', storage = ''] = nginx.hosts;
      const host = await Host.in(undefined, {
        registries: { [front]: { insecure: true }, [storage]: { insecure: true } },
      });
      await logInTo(host.root, { [front]: LOGIN });
      await publishFiles(host, 'app', { megabytes: 6, different: [3] });
      const { reusedBytes, downloadedBytes } = await host.registry.pullStack(`${front}/app:1`, {
        replace: true,
      });
      expect(reusedBytes).toBeGreaterThan(downloadedBytes);
    });

    test('one that is not marked insecure is not asked by plain http', async () => {
      const { nginx } = await registryWithStorage();
      const [front = '', storage = ''] = nginx.hosts;
      const host = await hostFor([front]);
      await logInTo(host.root, { [front]: LOGIN });
      const error = await rejection(host.registry.pullStack(`${front}/app:1`), 'REGISTRY_FAILED');
      expect(error.message).toContain(`redirects to http://${storage}, which is not https`);
      const asked = (await nginx.requests()).filter(({ host }) => host === storage);
      expect(asked.filter(({ path }) => path !== '/')).toEqual([]);
    });
  },
);
