// Artifacts of snapshots that were made to do harm: each is refused, and nothing appears, here or elsewhere.
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { answersOf, startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostFor, hostWithSnapshot, snapshotPath } from '../fixtures/fleet.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { lacks } from '../fixtures/tools.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs');
const FILE = 'vnd.microvm-rootfs.file';
const SHA256 = 'vnd.microvm-rootfs.sha256';
const SIZE = 'vnd.microvm-rootfs.size';

interface Layer {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface Manifest {
  readonly layers: readonly Layer[];
  readonly annotations: Readonly<Record<string, string>>;
}

/** What the comment of a snapshot's manifest holds. */
interface Head {
  readonly vmId: unknown;
  readonly stack: unknown;
  readonly sizeStamp?: unknown;
  readonly sizes: Readonly<Record<string, number>>;
}

const isIndex = ({ mediaType }: Layer) => mediaType.endsWith('index.v1');
const isSums = ({ mediaType }: Layer) => mediaType.endsWith('snapshot-manifest.v1');
const fileOf = ({ annotations = {} }: Layer) => annotations[FILE];
const hexOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

/** A registry with a snapshot in it, whose manifests the test can exchange. */
async function setting() {
  const { host: registry } = await startOciRegistry();
  const a = await hostWithSnapshot([registry], { megabytes: 1 });
  await a.registry.pushSnapshot('before', `${registry}/snap:1`);
  const get = async (path: string) => {
    const accept = { accept: 'application/vnd.oci.image.manifest.v1+json' };
    return (await fetch(`http://${registry}/v2/snap/${path}`, { headers: accept })).text();
  };
  const manifest: Manifest = JSON.parse(await get('manifests/1'));
  const sums = await get(`blobs/${manifest.layers.find(isSums)?.digest}`);
  const proxy = await startFaultyProxy(registry);
  const host = await hostFor([proxy.host]);
  const answers = answersOf(proxy);
  const reference = `${proxy.host}/snap:1`;
  const serve = (served: object) => answers.set('/manifests/', JSON.stringify(served));
  const refuse = async (served: object, code = 'ARTIFACT_INVALID') => {
    serve(served);
    const error = await host.registry.pullSnapshot(reference).then(
      () => undefined,
      (thrown) => thrown as { code: string; message: string },
    );
    expect(error?.code, error?.message).toBe(code);
    expect(await exists(snapshotPath(host, 'snap'))).toBe(false);
    expect(await partial(join(host.clonesDir, '.microvm-rootfs/snapshots/.microvm-rootfs/pulls'))).toEqual(
      [],
    );
    expect((await readdir(host.root)).sort()).toEqual(await expected(host.root));
    return error?.message ?? '';
  };
  /** The manifest with these layers instead. */
  const withLayers = (layers: readonly (Layer | undefined)[]) => ({ ...manifest, layers });
  /** The manifest with this `SHA256SUMS` instead, and all that follows from it. */
  const withSums = (text: string | Buffer, sizeBytes = sizeOf(`${text}`)) => {
    const bytes = Buffer.from(text);
    const digest = `sha256:${hexOf(bytes)}`;
    answers.set(digest, bytes);
    const layers = manifest.layers.map((layer) =>
      isSums(layer) ? { ...layer, digest, size: bytes.length } : layer,
    );
    const annotations = { ...manifest.annotations, [SHA256]: hexOf(bytes), [SIZE]: `${sizeBytes}` };
    return { ...manifest, layers, annotations };
  };
  return { manifest, sums, host, reference, serve, refuse, withLayers, withSums };
}

async function partial(folder: string): Promise<string[]> {
  if (!(await exists(folder))) return [];
  return (await readdir(folder)).filter((name) => name.startsWith('sha256-'));
}

/** Nothing but the folders that a host has. */
async function expected(root: string): Promise<string[]> {
  return (await exists(join(root, 'clones'))) ? ['clones', 'templates'] : ['templates'];
}

const HEAD = '# microvm-rootfs snapshot ';

function headOf(sums: string): Head {
  return JSON.parse(sums.slice(HEAD.length, sums.indexOf('\n')));
}

function sizeOf(sums: string): number {
  try {
    return Object.values(headOf(sums).sizes).reduce((sum, size) => sum + size, 0);
  } catch {
    return 4096;
  }
}

function withHead(sums: string, change: Partial<Head>): string {
  return `${HEAD}${JSON.stringify({ ...headOf(sums), ...change })}${sums.slice(sums.indexOf('\n'))}`;
}

/** With this file called `name` instead. */
function renamed(sums: string, file: string, name: string): string {
  const sizes = Object.entries(headOf(sums).sizes).map(([key, size]) => [key === file ? name : key, size]);
  return withHead(sums, { sizes: Object.fromEntries(sizes) }).replace(`  ${file}\n`, `  ${name}\n`);
}

describe.skipIf(missing !== undefined)(
  `a hostile snapshot${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('with layers that do not make up its files is refused', async () => {
      const { manifest, refuse, withLayers } = await setting();
      const { layers } = manifest;
      const files = ['rootfs.ext4', 'vm 1.mem', 'state'];
      const indexOf = (file: string) => layers.find((layer) => isIndex(layer) && fileOf(layer) === file);
      const swap = (layer: Layer) => {
        const other = fileOf(layer) === 'rootfs.ext4' ? 'vm 1.mem' : 'rootfs.ext4';
        return isIndex(layer) && fileOf(layer) !== 'state'
          ? { ...layer, annotations: { [FILE]: other } }
          : layer;
      };
      await refuse(withLayers(layers.map(swap)));
      for (const name of ['../../../escaped', '/etc/passwd', 'SHA256SUMS', '__proto__', ''])
        await refuse(withLayers(layers.map((layer) => ({ ...layer, annotations: { [FILE]: name } }))));
      await refuse(withLayers(layers.map(({ annotations, ...layer }) => layer)));
      for (const file of files) {
        await refuse(withLayers(layers.filter((layer) => layer !== indexOf(file))));
        await refuse(withLayers([...layers, indexOf(file)]));
      }
      await refuse(withLayers(layers.filter((layer) => isIndex(layer) || isSums(layer))));
      await refuse(withLayers([layers[0], ...layers]));
      await refuse(withLayers(layers.filter((layer) => !isSums(layer))));
      await refuse(withLayers([...layers, layers.find(isSums)]));
      await refuse(withLayers(layers.map((layer) => (isSums(layer) ? { ...layer, size: 2 ** 30 } : layer))));
      await refuse(withLayers(layers.map((layer) => (isIndex(layer) ? { ...layer, size: 2 ** 40 } : layer))));
      for (const annotations of [
        {},
        { ...manifest.annotations, [SHA256]: '0'.repeat(64) },
        { ...manifest.annotations, [SIZE]: '4096' },
        { ...manifest.annotations, [SIZE]: '-1' },
      ])
        await refuse({ ...manifest, annotations });
    });

    test('with a manifest that no snapshot has is refused', async () => {
      const { sums, refuse, withSums } = await setting();
      const [line = '', ...lines] = sums.split('\n');
      for (const text of ['', 'x', HEAD, line, sums.slice(0, -1), lines.join('\n'), `${sums}\n`])
        await refuse(withSums(text));
      await refuse(withSums(Buffer.concat([Buffer.from([0xff]), Buffer.from(sums)])));
      await refuse(withSums(Buffer.from(sums.replace('"vmId":"vm/1"', '"vmId":"\u00ff"'), 'latin1')));
      for (const vmId of ['', '\0', 7, null, 'x'.repeat(256)])
        await refuse(withSums(withHead(sums, { vmId })));
      for (const stack of ['', '../../x', '.hidden', 'a/b', 7])
        await refuse(withSums(withHead(sums, { stack })));
      for (const sizeStamp of [-1, 0, 2 ** 40, 'x']) await refuse(withSums(withHead(sums, { sizeStamp })));
      for (const name of ['../../../escaped', '/etc/passwd', '.hidden', 'SHA256SUMS', 'ä'.repeat(200)])
        await refuse(withSums(renamed(sums, 'state', name)));
      // The disk comes first, and under no other name.
      await refuse(withSums(renamed(sums, 'rootfs.ext4', 'disk')));
      const [disk, memory, state] = lines;
      await refuse(withSums([line, memory, disk, state, ''].join('\n')));
      // A name twice, in the place of another one.
      await refuse(withSums([line, disk, memory, memory, ''].join('\n')));
    });

    test('of too many or too large files, or of other sizes, is refused', async () => {
      const { sums, refuse, withSums } = await setting();
      const { sizes } = headOf(sums);
      const many = Array.from({ length: 300 }, (_, i) => `file-${i}`);
      const more = Object.fromEntries(many.map((name) => [name, 0]));
      const text = withHead(sums, { sizes: { ...sizes, ...more } });
      const entries = many.map((name) => `${'0'.repeat(64)}  ${name}\n`).join('');
      expect(await refuse(withSums(text + entries))).toContain('303 files, more than 256');
      const memory = (size: number) => withHead(sums, { sizes: { ...sizes, 'vm 1.mem': size } });
      await refuse(withSums(memory(2 ** 41)));
      await refuse(withSums(memory(2 ** 53)));
      await refuse(withSums(memory((sizes['vm 1.mem'] as number) + 4096)));
      await refuse(withSums(memory(0)));
    });

    test('whose manifest has other digests than its files is refused, and nothing of it is kept', async () => {
      const { manifest, sums, serve, refuse, withSums, host, reference } = await setting();
      for (const line of sums.trimEnd().split('\n').slice(1)) {
        const [digest = ''] = line.split(' ');
        await refuse(withSums(sums.replace(digest, 'a'.repeat(64))), 'DIGEST_MISMATCH');
      }
      // Right again, it is pulled.
      serve(manifest);
      const { path } = await host.registry.pullSnapshot(reference, { name: 'snap' });
      expect(await sha256Of(join(path, 'SHA256SUMS'))).toBe(hexOf(Buffer.from(sums)));
    });
  },
);
