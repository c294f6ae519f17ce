// Manifests and indexes that were made to do harm: each is refused before it costs anything, and nothing appears.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { answersOf, startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { Random } from '../fixtures/random.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs');
const INDEX_TYPE = 'application/vnd.microvm-rootfs.index.v1';

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  urls?: string[];
}

interface Manifest {
  artifactType?: unknown;
  layers?: unknown;
  annotations?: Record<string, unknown>;
  [key: string]: unknown;
}

const digestOf = (bytes: Buffer | string) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** A registry with a stack in it, whose manifest and index the test can exchange. */
async function setting() {
  const { host: registry } = await startOciRegistry();
  const a = await hostFor([registry]);
  const sha256 = await publishFiles(a, 'app', { megabytes: 2 });
  await a.registry.pushStack('app', `${registry}/app:1`);
  const get = async (path: string) =>
    Buffer.from(
      await (
        await fetch(`http://${registry}/v2/app/${path}`, {
          headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
        })
      ).arrayBuffer(),
    );
  const manifest = JSON.parse((await get('manifests/1')).toString()) as Manifest & { layers: Descriptor[] };
  const index = await get(`blobs/${manifest.layers.at(-1)?.digest}`);
  const proxy = await startFaultyProxy(registry);
  const host = await hostFor([proxy.host]);
  const answers = answersOf(proxy);
  const serve = (changed: unknown, changedIndex?: Buffer) => {
    answers.clear();
    answers.set('/manifests/', typeof changed === 'string' ? changed : JSON.stringify(changed));
    if (changedIndex !== undefined) answers.set(digestOf(changedIndex), changedIndex);
  };
  const refused = async (code: string | readonly string[]) => {
    const error = await host.registry.pullStack(`${proxy.host}/app:1`).then(
      () => undefined,
      (thrown) => thrown as { code: string },
    );
    expect([code].flat()).toContain(error?.code);
    expect(await exists(host.template('app'))).toBe(false);
  };
  return { manifest, index, host, proxy, serve, refused, sha256 };
}

/** The manifest with this index instead. */
function withIndex(manifest: Manifest & { layers: Descriptor[] }, index: Buffer): Manifest {
  const packs = manifest.layers.slice(0, -1);
  const layer = { mediaType: INDEX_TYPE, digest: digestOf(index), size: index.length };
  return { ...manifest, layers: [...packs, layer] };
}

describe.skipIf(missing !== undefined)(
  `a hostile artifact${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('with compressed bytes beyond any measure is refused before they are fetched', async () => {
      const { manifest, index, proxy, serve, refused } = await setting();
      const packs = index.readUInt32LE(16);
      const grown = Buffer.from(index);
      // Of the first chunk: its frame, which the size of the first pack has to match.
      const at = 24 + packs * 4 + 4;
      const more = 2 ** 31 - grown.readUInt32LE(at);
      grown.writeUInt32LE(2 ** 31, at);
      const changed = withIndex(manifest, grown) as Manifest & { layers: Descriptor[] };
      changed.layers = changed.layers.map((layer, i) =>
        i === 0 ? { ...layer, size: layer.size + more } : layer,
      );
      serve(changed, grown);
      await refused('ARTIFACT_INVALID');
      expect(proxy.seen.filter(({ url }) => url.includes('/blobs/'))).toHaveLength(1);
    });

    test('with a manifest that is none, or is another kind, is refused', async () => {
      const { manifest, serve, refused } = await setting();
      const [pack, ...rest] = manifest.layers as [Descriptor, ...Descriptor[]];
      const { annotations = {} } = manifest;
      const many = Array.from({ length: 17_000 }, () => ({ mediaType: 'x', digest: pack.digest, size: 1 }));
      const bad: unknown[] = [
        'not JSON',
        '[]',
        'null',
        '{}',
        { ...manifest, artifactType: 'application/vnd.oci.image.config.v1+json' },
        { ...manifest, layers: [] },
        { ...manifest, layers: {} },
        { ...manifest, layers: [null, ...rest] },
        { ...manifest, layers: many },
        { ...manifest, layers: [{ ...pack, digest: '../../etc/passwd' }, ...rest] },
        { ...manifest, layers: [{ ...pack, digest: 'sha512:00' }, ...rest] },
        { ...manifest, layers: [{ ...pack, size: -1 }, ...rest] },
        { ...manifest, layers: [{ ...pack, size: 2 ** 53 }, ...rest] },
        { ...manifest, layers: [{ ...pack, size: pack.size + 1 }, ...rest] },
        { ...manifest, layers: [pack, pack, ...rest] },
        { ...manifest, layers: rest.slice(0, -1) },
        { ...manifest, layers: [...manifest.layers, manifest.layers.at(-1)] },
        {
          ...manifest,
          layers: manifest.layers.map((layer) => ({
            ...layer,
            size: layer.mediaType === INDEX_TYPE ? 2 ** 40 : layer.size,
          })),
        },
        { ...manifest, annotations: {} },
        { ...manifest, annotations: { ...annotations, 'vnd.microvm-rootfs.size': '1e3' } },
        { ...manifest, annotations: { ...annotations, 'vnd.microvm-rootfs.size': '-4096' } },
        { ...manifest, annotations: { ...annotations, 'vnd.microvm-rootfs.sha256': '../x' } },
        `${JSON.stringify(manifest)}${' '.repeat(5 * 1024 * 1024)}`,
      ];
      for (const each of bad) {
        serve(each);
        await refused('ARTIFACT_INVALID');
      }
    });

    test('with an index that does not fit, or promises too much, is refused', async () => {
      const { manifest, index, serve, refused } = await setting();
      const edit = (change: (bytes: Buffer) => void) => {
        const bytes = Buffer.from(index);
        change(bytes);
        return bytes;
      };
      const chunk = 24 + 4 * index.readUInt32LE(16);
      const bad = [
        Buffer.alloc(0),
        index.subarray(0, 23),
        index.subarray(0, -1),
        Buffer.concat([index, Buffer.alloc(40)]),
        edit((bytes) => bytes.write('X', 0)),
        edit((bytes) => bytes.writeUInt32LE(0xffff_ffff, 16)),
        edit((bytes) => bytes.writeUInt32LE(0xffff_ffff, 20)),
        edit((bytes) => bytes.writeUInt32LE(0, 24)),
        edit((bytes) => bytes.writeUInt32LE(0, chunk)),
        edit((bytes) => bytes.writeUInt32LE(0x7fff_ffff, chunk)),
        edit((bytes) => bytes.writeUInt32LE(0xffff_ffff, chunk)),
        edit((bytes) => bytes.writeUInt32LE(0, chunk + 4)),
        edit((bytes) => bytes.writeUInt32LE(0xffff_ffff, chunk + 4)),
        edit((bytes) => bytes.writeBigUInt64LE(2n ** 60n, 8)),
      ];
      for (const each of bad) {
        serve(withIndex(manifest, each), each);
        await refused('ARTIFACT_INVALID');
      }
    });

    test('with an index whose bytes are changed by chance never gives another image', async () => {
      const { manifest, index, host, proxy, serve, refused, sha256 } = await setting();
      const random = new Random(7);
      for (let round = 0; round < 6; round++) {
        const bytes = Buffer.from(index);
        const at = random.below(bytes.length);
        bytes.writeUInt8(bytes.readUInt8(at) ^ (1 + random.below(255)), at);
        serve(withIndex(manifest, bytes), bytes);
        // The digest of a chunk of zeros is not used.
        const pulled = await host.registry.pullStack(`${proxy.host}/app:1`).catch(() => undefined);
        if (pulled === undefined) await refused(['ARTIFACT_INVALID', 'DIGEST_MISMATCH']);
        else expect(await sha256Of(host.template('app'))).toBe(sha256);
        await host.registry.removeStack('app');
      }
    });

    test('asked for by its digest is refused if the registry sends another', async () => {
      const { manifest, host, proxy, serve } = await setting();
      serve({ ...manifest, extra: 1 });
      const reference = `${proxy.host}/app@${digestOf(JSON.stringify(manifest))}`;
      await rejection(host.registry.pullStack(reference), 'DIGEST_MISMATCH');
    });

    test('with titles and urls is pulled like any other: neither is used', async () => {
      const { manifest, host, proxy, serve, sha256 } = await setting();
      const layers = manifest.layers.map((layer) => ({
        ...layer,
        annotations: { 'org.opencontainers.image.title': '../../../escaped' },
        urls: ['http://127.0.0.1:9/elsewhere'],
      }));
      serve({ ...manifest, layers });
      expect(await host.registry.pullStack(`${proxy.host}/app:1`)).toMatchObject({ sha256 });
      expect(await exists(join(host.root, 'escaped'))).toBe(false);
    });

    test('under an index of platforms: the right one, or an error that lists them', async () => {
      const { manifest, host, proxy, sha256 } = await setting();
      const text = JSON.stringify(manifest);
      const entry = {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: digestOf(text),
        size: text.length,
        platform: { os: 'linux', architecture: 'riscv64' },
      };
      const mediaType = 'application/vnd.oci.image.index.v1+json';
      const list = JSON.stringify({ schemaVersion: 2, mediaType, manifests: [entry] });
      proxy.rule = ({ url }) => {
        if (url.endsWith('/manifests/1'))
          return { status: 200, headers: { 'content-type': mediaType }, body: list };
        return url.includes('/manifests/') ? { status: 200, body: text } : undefined;
      };
      const error = await rejection(host.registry.pullStack(`${proxy.host}/app:1`), 'ARTIFACT_INVALID');
      expect(error.message).toContain('linux/riscv64');
      const pulled = host.registry.pullStack(`${proxy.host}/app:1`, { platform: 'linux/riscv64' });
      expect(await pulled).toMatchObject({ sha256 });
    });
  },
);
