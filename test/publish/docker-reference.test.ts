// A container image that is published from a real registry: who is asked for it, with which login, and how often.
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { parseDockerReference } from '../../src/publish/docker-reference.js';
import { fetchImage, type RegistryCheck } from '../../src/publish/fetch-image.js';
import { parsePlatform } from '../../src/publish/platform.js';
import { checkRegistry } from '../../src/remote/check-registry.js';
import type { RegistrySettings } from '../../src/system/registry-settings.js';
import { Task } from '../../src/system/task.js';
import { serve } from '../fixtures/fake-registry.js';
import { type Fault, type FaultyProxy, type Seen, startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists } from '../fixtures/files.js';
import { hostFor, hostWithSnapshot, publishFiles } from '../fixtures/fleet.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern, run } from '../fixtures/images.js';
import { basic, logInTo } from '../fixtures/logins.js';
import { makeLayout } from '../fixtures/oci-layout.js';
import { digestOf } from '../fixtures/oci-push.js';
import { makeCertificate, startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { makeTar } from '../fixtures/tars.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const missing =
  lacksRoot() ?? lacks('skopeo', 'umoci', 'mke2fs', 'docker-registry', 'htpasswd', 'openssl', 'zstd');
const GUEST = process.arch === 'arm64' ? 'arm64' : 'amd64';
const DIGEST = `sha256:${'a'.repeat(64)}`;

test.each([
  ['debian', 'docker.io', 'library/debian'],
  ['debian:12', 'docker.io', 'library/debian:12'],
  ['team/app:1', 'docker.io', 'team/app:1'],
  ['index.docker.io/debian', 'docker.io', 'library/debian'],
  ['registry-1.docker.io/team/app', 'docker.io', 'team/app'],
  ['docker.io/library/debian:12', 'docker.io', 'library/debian:12'],
  ['Docker.IO/debian', 'docker.io', 'library/debian'],
  ['localhost/app', 'localhost', 'app'],
  ['REGISTRY/app', 'registry', 'app'],
  ['registry.example/team/app', 'registry.example', 'team/app'],
  [`127.0.0.1:5000/app:1@${DIGEST}`, '127.0.0.1:5000', `app@${DIGEST}`],
  [`debian:12@${DIGEST}`, 'docker.io', `library/debian@${DIGEST}`],
])('docker://%s is asked of %s', (name, host, image) => {
  expect(parseDockerReference(`docker://${name}`)).toEqual({ host, image });
});

/** A layout with two layers, in the folder. */
async function anImage(folder: string): Promise<string> {
  const layers = [
    makeTar([{ path: 'one', contents: pattern(MiB, 1) }]),
    makeTar([{ path: 'two', contents: pattern(MiB, 2) }]),
  ];
  const layout = join(folder, 'image');
  await makeLayout(layout, [{ layers, compression: 'gzip', architecture: GUEST }]);
  return layout;
}

/** For skopeo's settings. */
function useHome(folder: string): void {
  const { HOME } = process.env;
  process.env.HOME = folder;
  onTestFinished(() => {
    process.env.HOME = HOME;
  });
}

/** A registry with `app:1`, its image's digest as a stack, and a proxy in front of it. */
async function withImage(rule: (request: Seen, index: number) => Fault | undefined = () => undefined) {
  const { host: registry } = await startOciRegistry();
  const builder = await Host.in();
  const layout = await anImage(builder.root);
  for (const name of ['app', 'library/app'])
    await run('skopeo', [
      ...['copy', '-q', '--dest-tls-verify=false'],
      ...[`oci:${layout}:latest`, `docker://${registry}/${name}:1`],
    ]);
  const { sha256 } = await builder.registry.publishStack('app', `oci:${layout}`);
  const proxy = await startFaultyProxy(registry);
  proxy.rule = rule;
  return { registry, proxy, sha256 };
}

/** The first request for each blob has this fault. */
function onceForABlob(fault: Fault): (request: Seen) => Fault | undefined {
  let isOver = false;
  return ({ url }) => {
    if (isOver || !url.includes('/blobs/')) return undefined;
    isOver = true;
    return fault;
  };
}

const blobsOf = ({ seen }: FaultyProxy) => seen.filter(({ url }) => url.includes('/blobs/'));

/** Into a folder of its own. A registry may be silent for two seconds. */
async function fetchInto(folder: string, source: string, registries: RegistrySettings): Promise<void> {
  const workFolder = join(folder, 'work');
  await mkdir(workFolder);
  const request = {
    ...{ source, workFolder, platform: parsePlatform(undefined), registries, silenceMs: 2000 },
    checkRegistry: (...asked: Parameters<RegistryCheck>) => checkRegistry(registries, ...asked),
  };
  await fetchImage(new Task('fetching', undefined), request);
  expect(await exists(join(workFolder, 'oci/index.json'))).toBe(true);
  expect(await exists(join(workFolder, 'logins'))).toBe(false);
}

describe.skipIf(missing !== undefined)(
  `docker://…${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('over checked TLS, with a stored login, gives the digest of oci:DIR', async () => {
      const host = await Host.in();
      const at = (name: string) => join(host.root, name);
      const { ca, key } = await makeCertificate(host.root);
      await run('htpasswd', ['-Bbc', at('htpasswd'), 'ann', 'secret']);
      const { host: registry } = await startOciRegistry({
        scheme: 'https',
        config: `http: { addr: HOST, tls: { certificate: ${ca}, key: ${key} } }
auth: { htpasswd: { realm: here, path: ${at('htpasswd')} } }`,
      });
      const layout = await anImage(host.root);
      const source = `docker://${registry}/app:1`;
      const access = ['--dest-creds', 'ann:secret', '--dest-tls-verify=false'];
      await run('skopeo', ['copy', '-q', ...access, `oci:${layout}:latest`, source]);
      const { sha256 } = await host.registry.publishStack('app', `oci:${layout}`);

      const publish = (setting: RegistrySettings[string]) =>
        host
          .anotherRegistry({ registries: { [registry]: setting } })
          .publishStack('again', source, { replace: true });
      await rejection(publish({ ca }), 'REGISTRY_UNAUTHORIZED');
      const authFile = at('auth.json');
      const login = ['-u', 'ann', '-p', 'secret', '--tls-verify=false', '--authfile', authFile];
      await run('skopeo', ['login', ...login, registry]);
      process.env.REGISTRY_AUTH_FILE = authFile;
      try {
        expect(await publish({ ca })).toMatchObject({ sha256, format: 'container' });
      } finally {
        delete process.env.REGISTRY_AUTH_FILE;
      }
      await logInTo(host.root, { [registry]: 'ann:secret' });
      await rejection(publish({ insecure: true }), 'REGISTRY_FAILED');
      expect(await publish({ insecure: true, ca })).toMatchObject({ sha256 });
      expect((await rejection(publish({}), 'REGISTRY_FAILED')).message).toMatch(/certificate/i);
    });

    test.each<[string, (request: Seen) => Fault | undefined]>([
      ['503 for a blob', onceForABlob({ status: 503 })],
      ['a blob that breaks off', onceForABlob({ cutAfter: 1000 })],
      ['wrong bytes', onceForABlob({ flip: 1000 })],
    ])('%s, once, is passed over', async (_, rule) => {
      const { proxy, sha256 } = await withImage(rule);
      const host = await hostFor([proxy.host]);
      expect(await host.registry.publishStack('app', `docker://${proxy.host}/app:1`)).toMatchObject({
        sha256,
      });
    });

    test('wrong bytes from the registry twice are DIGEST_MISMATCH', async () => {
      const { proxy } = await withImage(({ url }) => (url.includes('/blobs/') ? { flip: 1000 } : undefined));
      const host = await hostFor([proxy.host]);
      const call = host.registry.publishStack('app', `docker://${proxy.host}/app:1`);
      await rejection(call, 'DIGEST_MISMATCH');
      expect(await host.stagedInCatalog()).toEqual([]);
    });

    test('a registry that falls silent is asked again', async () => {
      const { proxy } = await withImage(onceForABlob({ silentAfter: 1000 }));
      const { root } = await Host.in();
      await fetchInto(root, `docker://${proxy.host}/app:1`, { [proxy.host]: { insecure: true } });
    });

    test('a mirror is asked first, without the login of its registry, and twice if it falls silent', async () => {
      const { proxy: mirror, registry } = await withImage();
      const origin = await startFaultyProxy(registry);
      origin.rule = ({ headers }) =>
        headers.authorization === basic('ann:secret')
          ? undefined
          : { status: 401, headers: { 'www-authenticate': 'Basic realm="here"' } };
      const registries = {
        [origin.host]: { insecure: true, mirrors: [mirror.host] },
        [mirror.host]: { insecure: true },
      };
      const host = await Host.in(undefined, { registries });
      await logInTo(host.root, { [origin.host]: 'ann:secret' });
      const source = `docker://${origin.host}/app:1`;
      await host.registry.publishStack('app', source);
      expect(origin.seen).toEqual([]);
      expect(blobsOf(mirror).length).toBeGreaterThan(0);
      expect(mirror.seen.filter(({ headers }) => headers.authorization !== undefined)).toEqual([]);
      // What the mirror lacks comes from the registry.
      mirror.rule = ({ url }) => (url.includes('/blobs/') ? { status: 404 } : undefined);
      await host.registry.publishStack('app', source, { replace: true });
      expect(blobsOf(origin).length).toBeGreaterThan(0);
      mirror.seen.length = 0;
      mirror.rule = ({ url }) => (url.includes('/manifests/') ? { silentAfter: 0 } : undefined);
      await fetchInto(host.root, source, registries);
      expect(mirror.seen.filter(({ url }) => url.includes('/manifests/'))).toHaveLength(2);
    });

    test.each<[string, (host: string) => object]>([
      ['a helper', (host) => ({ auths: { [host]: {} }, credsStore: 'mine' })],
      ['username and password', (host) => ({ auths: { [host]: { username: 'ann', password: 'secret' } } })],
    ])('a login that pulls find is found: %s', async (_, logins) => {
      const { proxy } = await withImage(({ headers }) =>
        headers.authorization === basic('ann:secret')
          ? undefined
          : { status: 401, headers: { 'www-authenticate': 'Basic realm="here"' } },
      );
      const { root } = await Host.in();
      await logInTo(root, {});
      await writeFile(join(root, 'docker/config.json'), JSON.stringify(logins(proxy.host)));
      // skopeo would ask it for a name in another spelling as well.
      const helper = join(root, 'docker-credential-mine');
      await writeFile(helper, `#!/bin/sh\necho '{"Username":"ann","Secret":"secret"}'\n`);
      await chmod(helper, 0o755);
      const { PATH } = process.env;
      process.env.PATH = `${root}:${PATH}`;
      onTestFinished(() => {
        process.env.PATH = PATH;
      });
      await fetchInto(root, `docker://${proxy.host}/app:1`, { [proxy.host]: { insecure: true } });
    });

    test.each(['{"credsStore":"not-installed"}', '', '{'])(
      'a public image needs no login, and no usable login file: %j',
      async (contents) => {
        const { registry } = await withImage();
        const { root } = await Host.in();
        await logInTo(root, {});
        await writeFile(join(root, 'docker/config.json'), contents);
        await fetchInto(root, `docker://${registry}/app:1`, { [registry]: { insecure: true } });
      },
    );

    test('what could not be used is told where a login is wanted', async () => {
      const { proxy } = await withImage(() => ({
        status: 401,
        headers: { 'www-authenticate': 'Basic realm="here"' },
      }));
      const host = await hostFor([proxy.host]);
      await logInTo(host.root, {});
      await writeFile(join(host.root, 'docker/config.json'), '{"credsStore":"not-installed"}');
      for (const call of [
        () => host.registry.publishStack('app', `docker://${proxy.host}/app:1`),
        () => host.registry.pullStack(`${proxy.host}/app:1`),
      ])
        expect((await rejection(call(), 'REGISTRY_UNAUTHORIZED')).message).toContain(
          'docker-credential-not-installed',
        );
    });

    test('a public image of a registry that wants a stranger to have a token', async () => {
      const service = await serve((_, response) => void response.end('{"access_token":"T"}'));
      const challenge = { 'www-authenticate': `Bearer realm="http://${service}/token",service="s"` };
      const { proxy, sha256 } = await withImage(({ headers }) =>
        headers.authorization === 'Bearer T' ? undefined : { status: 401, headers: challenge },
      );
      const registries = {
        [proxy.host]: { insecure: true, realms: [service] },
        [service]: { insecure: true },
      };
      const host = await Host.in(undefined, { registries });
      expect(await host.registry.publishStack('app', `docker://${proxy.host}/app:1`)).toMatchObject({
        sha256,
      });
    });

    test('the login goes to the token service alone, and a token that expires is renewed', async () => {
      let tokens = 0;
      // Each is good for one blob.
      const used = new Set<string>();
      const { proxy, sha256 } = await withImage(({ url, headers: { authorization = '', host } }) => {
        if (url.startsWith('/token')) {
          if (authorization !== basic('ann:secret')) return { status: 401 };
          return { status: 200, body: JSON.stringify({ token: `token-${++tokens}` }) };
        }
        if (authorization === `Bearer token-${tokens}` && !used.has(authorization)) {
          if (url.includes('/blobs/')) used.add(authorization);
          return undefined;
        }
        const challenge = `Bearer realm="http://${host}/token",service="s",scope="*"`;
        return { status: 401, headers: { 'www-authenticate': challenge } };
      });
      const host = await hostFor([proxy.host]);
      await logInTo(host.root, { [proxy.host]: 'ann:secret' });
      expect(await host.registry.publishStack('app', `docker://${proxy.host}/app:1`)).toMatchObject({
        sha256,
      });
      expect(tokens).toBe(3);
      const sent = proxy.seen.filter(({ headers }) => headers.authorization?.startsWith('Basic'));
      const asked = `/token?${new URLSearchParams({ service: 's', scope: 'repository:app:pull' })}`;
      expect(sent.map(({ url }) => url)).toEqual(Array(3).fill(asked));
    });

    test('a mirror that skopeo does not ask is passed over', async () => {
      const { registry } = await withImage();
      const { root } = await Host.in();
      // One is no name for skopeo, the other is refused by the configuration of this host.
      const mirrors = ['[::1]:9', 'blocked.example'];
      useHome(root);
      await mkdir(join(root, '.config/containers'), { recursive: true });
      const blocked = '[[registry]]\nlocation = "blocked.example"\nblocked = true\n';
      await writeFile(join(root, '.config/containers/registries.conf'), blocked);
      const registries = { [registry]: { insecure: true, mirrors } };
      await fetchInto(root, `docker://${registry}/app:1`, registries);
    });

    test('an image whose signature a host looks up, as Fedora does for those of Red Hat, is published', async () => {
      const { registry, sha256 } = await withImage();
      const host = await hostFor([registry]);
      const source = `docker://${registry}/app:1`;
      const { stdout } = await run('skopeo', ['inspect', '--raw', '--tls-verify=false', source]);
      const folder = join(host.root, `app@${digestOf(stdout).replace(':', '=')}`);
      await mkdir(folder);
      // It begins as a compressed packet of OpenPGP does.
      await writeFile(join(folder, 'signature-1'), Buffer.from([0xa3, 1, 2]));
      useHome(host.root);
      const settings = join(host.root, '.config/containers');
      await mkdir(join(settings, 'registries.d'), { recursive: true });
      const where = `docker: { "${registry}": { lookaside: "file://${host.root}" } }`;
      await writeFile(join(settings, 'registries.d/host.yaml'), where);
      expect(await host.registry.publishStack('app', source)).toMatchObject({ sha256 });
      await writeFile(join(settings, 'policy.json'), '{"default":[{"type":"reject"}]}');
      await rejection(host.registry.publishStack('other', source), 'PROGRAM_FAILED');
    });

    test('a name without a host is asked of the mirrors of docker.io', async () => {
      const { proxy: mirror, sha256 } = await withImage();
      const registries = { 'docker.io': { mirrors: [mirror.host] }, [mirror.host]: { insecure: true } };
      const host = await Host.in(undefined, { registries });
      expect(await host.registry.publishStack('app', 'docker://app:1')).toMatchObject({ sha256 });
      expect(mirror.seen.map(({ url }) => url)).toContain('/v2/library/app/manifests/1');
    });

    test('an image that could not be finished is not fetched', async () => {
      const { proxy } = await withImage();
      const host = await hostFor([proxy.host]);
      await writeFile(join(host.templateDir, 'file'), '');
      const source = `docker://${proxy.host}/app:1`;
      await rejection(host.registry.publishStack('file', source, { replace: true }), 'TEMPLATE_INVALID');
      for (const [config, code] of [
        [{ e2fsckBin: '/nonexistent/e2fsck' }, 'E2FSCK_NOT_FOUND'],
        [{ mke2fsBin: '/nonexistent/mke2fs' }, 'MKE2FS_NOT_FOUND'],
      ] as const)
        await rejection(host.anotherRegistry(config).publishStack('app', source), code);
      expect(proxy.seen).toEqual([]);
    });

    test('a tag beside a digest does not count', async () => {
      const { registry, sha256 } = await withImage();
      const host = await hostFor([registry]);
      const { headers } = await fetch(`http://${registry}/v2/app/manifests/1`, {
        headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
      });
      const source = `docker://${registry}/app:other@${headers.get('docker-content-digest')}`;
      expect(await host.registry.publishStack('app', source)).toMatchObject({ sha256 });
    });

    test('a layer that does not end is ended by the limits, not by a full disk', async () => {
      const config = Buffer.from(
        JSON.stringify({ architecture: GUEST, os: 'linux', rootfs: { type: 'layers', diff_ids: [DIGEST] } }),
      );
      const types = 'application/vnd.oci.image';
      const manifest = JSON.stringify({
        schemaVersion: 2,
        mediaType: `${types}.manifest.v1+json`,
        config: { mediaType: `${types}.config.v1+json`, digest: digestOf(config), size: config.length },
        layers: [{ mediaType: `${types}.layer.v1.tar+gzip`, digest: DIGEST, size: 1000 }],
      });
      const start = Buffer.concat([Buffer.from('1f8b08', 'hex'), pattern(MiB, 3)]);
      const registry = await serve(async ({ url = '' }, response) => {
        if (url.includes('/manifests/'))
          return response.setHeader('content-type', `${types}.manifest.v1+json`).end(manifest);
        if (!url.includes(DIGEST)) return response.end(url.includes('/blobs/') ? config : '{}');
        for (let sent = 0; sent < 256 && !response.destroyed; sent++) {
          response.write(start);
          await sleep(20);
        }
        response.end();
      });
      const host = await hostFor([registry]);
      const options = { limits: { maxBytes: MiB } };
      const publishing = host.registry.publishStack('app', `docker://${registry}/app:1`, options);
      const { message } = await rejection(publishing, 'SOURCE_TOO_LARGE');
      expect(message).toContain(`has layers of more than ${MiB} bytes`);
      expect(await host.stagedInCatalog()).toEqual([]);

      const { registry: origin, sha256 } = await withImage();
      const registries = {
        [origin]: { insecure: true, mirrors: [registry] },
        [registry]: { insecure: true },
      };
      const mirrored = host.anotherRegistry({ registries });
      const published = mirrored.publishStack('app', `docker://${origin}/app:1`, {
        limits: { maxBytes: 8 * MiB },
      });
      expect(await published).toMatchObject({ sha256 });
    });

    test('stacks and snapshots in a registry are refused by what they are', async () => {
      const { host: registry } = await startOciRegistry();
      const host = await hostWithSnapshot([registry]);
      await host.registry.pushStack('app', `${registry}/app:1`);
      await host.registry.pushSnapshot('before', `${registry}/before:1`);
      for (const [name, call] of [
        ['app', 'pullStack'],
        ['before', 'pullSnapshot'],
      ]) {
        const error = await rejection(
          host.registry.publishStack('new', `docker://${registry}/${name}:1`),
          'ARTIFACT_INVALID',
        );
        expect(error.message).toContain(`pull it with ${call}`);
      }
    });

    test('a pull-through cache serves stacks and container images', async () => {
      const { registry: origin, sha256 } = await withImage();
      const { host: cache, blobs } = await startOciRegistry({
        config: `http: { addr: HOST }\nproxy: { remoteurl: http://${origin} }`,
      });
      const builder = await hostFor([origin]);
      const stack = await publishFiles(builder, 'stack', { megabytes: 2 });
      await builder.registry.pushStack('stack', `${origin}/stack:1`);
      const registries = {
        [origin]: { insecure: true, mirrors: [cache] },
        [cache]: { insecure: true },
      };
      const host = await Host.in(undefined, { registries });
      expect(await host.registry.pullStack(`${cache}/stack:1`)).toMatchObject({ sha256: stack });
      expect(await host.registry.pullStack(`${origin}/stack:1`, { name: 'again' })).toMatchObject({
        sha256: stack,
      });
      expect(await host.registry.publishStack('app', `docker://${cache}/app:1`)).toMatchObject({ sha256 });
      const [layer] = await layersOf(origin, 'app');
      expect(await blobs()).toContain(layer);
      expect(await host.registry.publishStack('mirrored', `docker://${origin}/app:1`)).toMatchObject({
        sha256,
      });
    });
  },
);

async function layersOf(registry: string, name: string): Promise<string[]> {
  const answer = await fetch(`http://${registry}/v2/${name}/manifests/1`, {
    headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
  });
  const { layers } = (await answer.json()) as { layers: readonly { readonly digest: string }[] };
  return layers.map(({ digest }) => digest);
}
