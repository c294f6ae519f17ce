// What networks and registries do wrong: the pull ends with the right bytes, or with a typed error and nothing changed.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { PulledStack } from '../../src/index.js';
import { type Fault, type FaultyProxy, type Seen, startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import type { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs');

interface Setting {
  readonly registry: string;
  readonly proxy: FaultyProxy;
  /** Pulls through the proxy. */
  readonly host: Host;
  readonly sha256: string;
  pull(concurrency?: number): Promise<PulledStack>;
}

async function pushed(): Promise<Setting> {
  const { host: registry } = await startOciRegistry();
  const a = await hostFor([registry]);
  const sha256 = await publishFiles(a, 'app');
  await a.registry.pushStack('app', `${registry}/app:1`);
  const proxy = await startFaultyProxy(registry);
  const host = await hostFor([proxy.host]);
  const pull = (concurrency = 8) =>
    host.registry.pullStack(`${proxy.host}/app:1`, { replace: true, concurrency });
  return { registry, proxy, host, sha256, pull };
}

const isBlob = ({ method, url }: Seen) => method === 'GET' && url.includes('/blobs/');

/** A fault for the first request of a kind. */
function once(fault: Fault, kind: (request: Seen) => boolean = isBlob): FaultyProxy['rule'] {
  let done = false;
  return (request) => {
    if (done || !kind(request)) return undefined;
    done = true;
    return fault;
  };
}

/** Of the second blob: the first is the index. */
function onceForPack(fault: Fault): FaultyProxy['rule'] {
  let blobs = 0;
  return (request) => (isBlob(request) && ++blobs === 2 ? fault : undefined);
}

async function nothingAppeared(host: Host): Promise<void> {
  expect(await exists(host.template('app'))).toBe(false);
  expect(await host.stagedInCatalog()).toEqual([]);
}

async function partialPulls(host: Host): Promise<string[]> {
  const folder = join(host.templateDir, '.microvm-rootfs/pulls');
  return (await exists(folder)) ? (await readdir(folder)).filter((name) => !name.startsWith('.')) : [];
}

describe.skipIf(missing !== undefined)(
  `a pull${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('goes on after 429, 500, broken connections and short bodies', async () => {
      const { proxy, host, sha256, pull } = await pushed();
      const faults: Fault[] = [
        { status: 429, headers: { 'retry-after': '0' } },
        { status: 500 },
        { cutAfter: 100_000 },
        { endAfter: 70_000 },
      ];
      for (const fault of faults) {
        proxy.rule = onceForPack(fault);
        expect(await pull(), JSON.stringify(fault)).toMatchObject({ sha256 });
        await host.registry.removeStack('app');
      }
      proxy.rule = once({ status: 503, headers: { 'retry-after': '0' } }, ({ url }) =>
        url.includes('/manifests/'),
      );
      expect(await pull()).toMatchObject({ sha256 });
      expect(await sha256Of(host.template('app'))).toBe(sha256);
    });

    test('asks for one blob after another by the same connection', async () => {
      const { proxy, sha256, pull } = await pushed();
      expect(await pull(1)).toMatchObject({ sha256 });
      expect(proxy.seen.length).toBeGreaterThan(3);
      expect(proxy.connections).toBe(1);
    });

    test('resumes a broken blob at the byte that was reached', async () => {
      const { proxy, pull } = await pushed();
      proxy.rule = onceForPack({ cutAfter: 2 * MiB });
      const { downloadedBytes } = await pull();
      const ranges = proxy.seen.filter(isBlob).map(({ headers }) => headers.range ?? '');
      const resumed = ranges.filter((range) => /^bytes=[1-9]/.test(range));
      expect(resumed).toHaveLength(1);
      expect(Number(/\d+/.exec(resumed[0] as string)?.[0])).toBeGreaterThan(MiB);
      expect(downloadedBytes).toBeLessThan(14 * MiB);
    });

    test('takes whole blobs from a registry that knows no ranges', async () => {
      const { registry, proxy, host, pull } = await pushed();
      await pull();
      const a = await hostFor([registry]);
      const sha256 = await publishFiles(a, 'app', { different: [3, 8] });
      await a.registry.pushStack('app', `${registry}/app:1`);
      proxy.rule = () => ({ ignoreRange: true });
      expect(await pull()).toMatchObject({ sha256, replaced: true });
      expect(await sha256Of(host.template('app'))).toBe(sha256);
    });

    test('fetches a flipped byte once more', async () => {
      const { proxy, host, sha256, pull } = await pushed();
      for (const rule of [onceForPack({ flip: 50_000 }), once({ flip: 40 })]) {
        proxy.rule = rule;
        expect(await pull()).toMatchObject({ sha256 });
        await host.registry.removeStack('app');
      }
    });

    test.each([
      ['a byte of a pack is wrong each time', { flip: 50_000 }, 'DIGEST_MISMATCH'],
      [
        'the registry compresses blobs that it was asked for as they are',
        { headers: { 'content-encoding': 'gzip' } },
        'REGISTRY_FAILED',
      ],
      ['there is no blob any more', { status: 404 }, 'REGISTRY_NOT_FOUND'],
      ['the registry refuses', { status: 403 }, 'REGISTRY_UNAUTHORIZED'],
      ['the registry asks for a range it does not have', { status: 416 }, 'REGISTRY_FAILED'],
    ])('%s: it ends with a typed error, and nothing appears', async (_, fault, code) => {
      const { proxy, host, sha256, pull } = await pushed();
      let blobs = 0;
      proxy.rule = (request) => (isBlob(request) && ++blobs > 1 ? fault : undefined);
      const error = await rejection(pull(), code);
      expect(error.message).toMatch(/;|:/);
      await nothingAppeared(host);
      if (code === 'DIGEST_MISMATCH') expect(await partialPulls(host)).toEqual([]);
      proxy.rule = () => undefined;
      expect(await pull()).toMatchObject({ sha256 });
      expect(await partialPulls(host)).toEqual([]);
    });

    test('what was fetched before a failure is not fetched again', async () => {
      const { proxy, sha256, pull } = await pushed();
      let packs = 0;
      proxy.rule = (request) => (isBlob(request) && ++packs > 2 ? { status: 403 } : undefined);
      await rejection(pull(1), 'REGISTRY_UNAUTHORIZED');
      proxy.rule = () => undefined;
      const pulled = await pull();
      expect(pulled.sha256).toBe(sha256);
      expect(pulled.reusedBytes).toBeGreaterThan(2 * MiB);
    });

    test('redirects that never end, and redirects to what is not https, are refused', async () => {
      const { proxy, host, pull } = await pushed();
      proxy.rule = (request) =>
        isBlob(request) ? { status: 307, headers: { location: request.url } } : undefined;
      expect((await rejection(pull(), 'REGISTRY_FAILED')).message).toContain('redirects more than');
      for (const location of [
        'http://127.0.0.2:9/x',
        'ftp://example.com/x',
        'file:///etc/passwd',
        'http://[',
      ]) {
        proxy.rule = (request) => (isBlob(request) ? { status: 302, headers: { location } } : undefined);
        await rejection(pull(), 'REGISTRY_FAILED');
      }
      await nothingAppeared(host);
    });
  },
);
