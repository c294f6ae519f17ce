// A stack that one host pushes and another pulls, through a real registry.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmod,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { RootfsRegistry } from '../../src/index.js';
import { cutImage } from '../../src/remote/cut.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import type { Host } from '../fixtures/host.js';
import { MiB, run } from '../fixtures/images.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const execute = promisify(execFile);
const missing = lacks('docker-registry', 'zstd', 'mke2fs');

const changed = { different: [5] };

describe.skipIf(missing !== undefined)(
  `push and pull${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    describeEachFilesystem(
      (filesystem) => {
        test('a pulled stack has the bytes and the digest of the pushed one', async () => {
          const { host: registry } = await startOciRegistry();
          const [a, b] = [
            await hostFor([registry], filesystem.path),
            await hostFor([registry], filesystem.path),
          ];
          const sha256 = await publishFiles(a, 'app');
          const pushed = await a.registry.pushStack('app', `${registry}/team/app:1`);
          expect(pushed).toMatchObject({ reference: `${registry}/team/app:1`, sha256, reusedBytes: 0 });
          const pulled = await b.registry.pullStack(`${registry}/team/app:1`);
          expect(pulled).toMatchObject({
            name: 'app',
            sha256,
            digest: pushed.digest,
            unchanged: false,
            reusedBytes: 0,
          });
          expect(await sha256Of(b.template('app'))).toBe(sha256);
          expect((await stat(b.template('app'))).mode & 0o777).toBe(0o444);
          expect(await b.stagedInCatalog()).toEqual([]);
          expect(await partialPulls(b)).toEqual([]);
          const clone = await b.registry.cloneForVm('vm', 'app', { writable: true });
          expect(clone.sourceSha256).toBe(sha256);
          // What is zero in the image is a hole.
          expect(await holeBytes(b.template('app'))).toBeGreaterThan(32 * MiB);
        });
      },
      ({ name, hidesOpenFiles }) => ['XFS', 'btrfs', 'ext4', 'tmpfs'].includes(name) || hidesOpenFiles,
    );

    test('an update fetches what the host lacks, by ranges', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app');
      await a.registry.pushStack('app', `${registry}/app:1`);
      const cold = await b.registry.pullStack(`${registry}/app:1`);
      const sha256 = await publishFiles(a, 'app', changed);
      await a.registry.pushStack('app', `${registry}/app:2`);
      const other = await rejection(b.registry.pullStack(`${registry}/app:2`), 'STACK_EXISTS');
      expect(other.path).toBe(b.template('app'));
      const update = await b.registry.pullStack(`${registry}/app:2`, { replace: true });
      expect(update).toMatchObject({ sha256, replaced: true, unchanged: false });
      expect(update.downloadedBytes).toBeLessThan(cold.downloadedBytes * 0.25);
      expect(update.reusedBytes).toBeGreaterThan(9 * MiB);
      expect(await sha256Of(b.template('app'))).toBe(sha256);
    });

    test('a host that built its own version before reuses that', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app', changed);
      const { sha256 } = await a.registry.pushStack('app', `${registry}/app:1`);
      await publishFiles(b, 'mine');
      const pulled = await b.registry.pullStack(`${registry}/app:1`, { name: 'other' });
      expect(pulled).toMatchObject({ name: 'other', sha256 });
      expect(pulled.downloadedBytes).toBeLessThan(3 * MiB);
    });

    test('templates that were never read are read where that saves time, not to tell what is missing', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app');
      await a.registry.pushStack('app', `${registry}/app:1`);
      const big = await b.addTemplate('big', Buffer.alloc(128 * MiB, 1));
      const same = await b.placeTemplate('same', async (path) => {
        await execute('cp', ['--sparse=always', a.template('app'), path]);
      });
      const notRead = async () => (await b.registry.verify()).templatesNotRead;
      await b.registry.inspectReference(`${registry}/app:1`);
      expect(await notRead()).toEqual([big, same]);
      const pulled = await b.registry.pullStack(`${registry}/app:1`);
      expect(pulled.reusedBytes).toBeGreaterThan(12 * MiB);
      expect(await notRead()).toEqual([big]);
    });

    test('what is missing is what a pull fetches, also where it does not compare with all templates', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app');
      await a.registry.pushStack('app', `${registry}/app:1`);
      const copyTo = (path: string) => execute('cp', ['--sparse=always', a.template('app'), path]);
      const others = Array.from({ length: 200 }, (_, i) => `other-${i}`);
      for (const other of others) await b.addTemplate(other, other);
      const oldest = await b.placeTemplate('oldest', async (path) => void (await copyTo(path)));
      await utimes(oldest, 1, 1);
      const chunks = join(b.templateDir, '.microvm-rootfs/chunks');
      await mkdir(chunks, { recursive: true });
      for (const { name, sha256, sizeBytes } of await b.registry.stacks()) {
        const image = await open(b.template(name));
        const { list } = await cutImage(new Task('cutting', undefined), image, sizeBytes, () => {});
        await image.close();
        const digest = createHash('sha256').update(list.bytes).digest();
        await writeFile(join(chunks, sha256), Buffer.concat([list.bytes, digest]));
      }
      const { missingBytes = 0 } = await b.registry.inspectReference(`${registry}/app:1`);
      const { downloadedBytes } = await b.registry.pullStack(`${registry}/app:1`);
      expect(downloadedBytes).toBeGreaterThan(2 * MiB);
      expect(downloadedBytes - missingBytes).toBeLessThan(100_000);
      const replaced = join(b.templateDir, 'app');
      await rm(replaced, { recursive: true });
      await rename(join(b.templateDir, 'oldest'), replaced);
      expect((await b.registry.inspectReference(`${registry}/app:1`)).missingBytes).toBe(0);
    });

    test('the same image again is unchanged, and pushes the same digest', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app');
      const first = await a.registry.pushStack('app', `${registry}/app:1`);
      await b.registry.pullStack(`${registry}/app:1`);
      const inode = (await stat(b.template('app'))).ino;
      const again = await b.registry.pullStack(`${registry}/app@${first.digest}`);
      expect(again).toMatchObject({ unchanged: true, downloadedBytes: 0 });
      expect((await stat(b.template('app'))).ino).toBe(inode);
      const second = await b.registry.pushStack('app', `${registry}/app:same`);
      expect(second).toMatchObject({ digest: first.digest, uploadedBytes: 0 });
    });

    test('a template that others may not read is pulled as one', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app', { megabytes: 2 });
      const open = await a.registry.pushStack('app', `${registry}/app:1`);
      await chmod(a.template('app'), 0o400);
      const { digest } = await a.registry.pushStack('app', `${registry}/app:2`);
      expect(digest).not.toBe(open.digest);
      await b.registry.pullStack(`${registry}/app:2`);
      expect((await stat(b.template('app'))).mode & 0o777).toBe(0o400);
      expect(await b.registry.pushStack('app', `${registry}/app:3`)).toMatchObject({ digest });
    });

    test('what the registry collected as garbage is sent again, though its cache still knows it', async () => {
      const { host: registry, root } = await startOciRegistry({ blobCache: true });
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      const sha256 = await publishFiles(a, 'app', { megabytes: 2 });
      const { digest, uploadedBytes } = await a.registry.pushStack('app', `${registry}/app:1`);
      await fetch(`http://${registry}/v2/app/manifests/${digest}`, { method: 'DELETE' });
      await run('docker-registry', ['garbage-collect', join(root, 'config.yml')]);
      const again = await a.registry.pushStack('app', `${registry}/app:1`);
      expect(again).toMatchObject({ digest, uploadedBytes });
      expect(await b.registry.pullStack(`${registry}/app:1`)).toMatchObject({ sha256 });
    });

    test('a damaged tag does not stop a push to it, and a damaged blob that the registry keeps does', async () => {
      const { host: registry, blobPath } = await startOciRegistry();
      const proxy = await startFaultyProxy(registry);
      const a = await hostFor([registry, proxy.host]);
      await publishFiles(a, 'app', { megabytes: 2 });
      const { digest } = await a.registry.pushStack('app', `${registry}/app:1`);
      proxy.rule = ({ method, url }) =>
        method === 'GET' && url.endsWith('/manifests/1') ? { status: 400 } : undefined;
      expect(await a.registry.pushStack('app', `${proxy.host}/app:1`)).toMatchObject({ uploadedBytes: 0 });
      const { layers } = JSON.parse(await readFile(blobPath(digest), 'utf8'));
      const index = blobPath(layers.at(-1).digest);
      await truncate(index, 50);
      const push = a.registry.pushStack('app', `${registry}/app:1`);
      expect((await rejection(push, 'REGISTRY_FAILED')).message).toContain('still has a damaged copy');
      await rm(index);
      await a.registry.pushStack('app', `${registry}/app:1`);
      expect(await a.registry.pullStack(`${registry}/app:1`)).toMatchObject({ unchanged: true });
    });

    test('two pulls of one artifact at once: one fetches, the other finds it unchanged', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app');
      await a.registry.pushStack('app', `${registry}/app:1`);
      const both: RootfsRegistry[] = [b.registry, b.anotherRegistry()];
      const pulled = await Promise.all(both.map((each) => each.pullStack(`${registry}/app:1`)));
      expect(pulled.map(({ unchanged }) => unchanged).sort()).toEqual([false, true]);
    });

    test('cat and zstd restore the image without this library, also after skopeo has copied it', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostFor([registry]);
      const sha256 = await publishFiles(a, 'app');
      const { digest } = await a.registry.pushStack('app', `${registry}/app:1`);
      const layout = join(a.root, 'layout');
      const copied = [`docker://${registry}/app:1`, `oci:${layout}:app`];
      await run('skopeo', ['copy', '-q', '--src-tls-verify=false', ...copied]);
      const blob = (name: string) => join(layout, 'blobs/sha256', name.replace('sha256:', ''));
      const manifest = JSON.parse(await readFile(blob(digest), 'utf8'));
      const packs = manifest.layers
        .filter(({ mediaType }: { mediaType: string }) => mediaType.endsWith('raw+zstd'))
        .map((layer: { digest: string }) => blob(layer.digest));
      const restored = join(a.root, 'restored');
      await execute('bash', ['-c', `cat "$@" | zstd -dqc > '${restored}'`, 'bash', ...packs]);
      expect(await sha256Of(restored)).toBe(sha256);
    });

    test('a base in the same registry saves compressing and sending its packs', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostFor([registry]);
      await publishFiles(a, 'app');
      await a.registry.pushStack('app', `${registry}/app:1`);
      const sha256 = await publishFiles(a, 'app', changed);
      const pushed = await a.registry.pushStack('app', `${registry}/else/where:2`, {
        base: `${registry}/app:1`,
      });
      expect(pushed.reusedBytes).toBeGreaterThan(0);
      const b = await hostFor([registry]);
      expect(await b.registry.pullStack(`${registry}/else/where:2`)).toMatchObject({ sha256 });
    });

    test('what the tag has already is not compressed again, unless a level is asked for', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostFor([registry]);
      await publishFiles(a, 'app', { megabytes: 2 });
      const push = (options = {}) => a.registry.pushStack('app', `${registry}/app:1`, options);
      const first = await push({ level: 9 });
      const { digest, uploadedBytes } = await push();
      expect([digest, uploadedBytes]).toEqual([first.digest, 0]);
      expect((await push({ level: 1 })).digest).not.toBe(digest);
      const sha256 = await publishFiles(a, 'app', { megabytes: 2, different: [1] });
      expect(await push()).toMatchObject({ sha256, digest: (await push({ level: 3 })).digest });
    });

    test('the config of a container image travels with the stack', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      const sha256 = await publishFiles(a, 'app');
      const image = { entrypoint: ['/sbin/init'], env: ['A=1'] };
      await writeFile(`${a.template('app')}.${sha256}.json`, JSON.stringify(image));
      await a.registry.pushStack('app', `${registry}/app:1`);
      await b.registry.pullStack(`${registry}/app:1`);
      expect((await b.anotherRegistry().stack('app'))?.image).toEqual(image);
    });

    test('another config, or who may read it, comes with replace though the image is the same', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      const sha256 = await publishFiles(a, 'app', { megabytes: 2 });
      const reference = `${registry}/app:1`;
      const config = `${a.template('app')}.${sha256}.json`;
      const push = async (image?: object) => {
        await (image === undefined ? rm(config) : writeFile(config, JSON.stringify(image)));
        return a.registry.pushStack('app', reference);
      };
      const first = { entrypoint: ['/sbin/init'], env: ['A=1'], labels: { one: '1', other: '2' } };
      await push(first);
      await b.registry.pullStack(reference);
      await b.registry.cloneForVm('vm', 'app');
      const expectPulled = async (expected: object, image: object | undefined, mode: number) => {
        const pulled = await b.registry.pullStack(reference, { replace: true });
        expect(pulled).toMatchObject({ sha256, ...expected });
        expect(pulled.image).toEqual(image);
        expect((await b.anotherRegistry().stack('app'))?.image).toEqual(image);
        expect((await stat(b.template('app'))).mode & 0o777).toBe(mode);
      };
      await expectPulled({ unchanged: true }, first, 0o444);
      const second = { ...first, env: ['A=2'] };
      await push(second);
      expect(await b.registry.pullStack(reference)).toMatchObject({ unchanged: true, image: first });
      await expectPulled({ unchanged: false, replaced: true }, second, 0o444);
      await expectPulled({ unchanged: true, replaced: false }, second, 0o444);
      await chmod(a.template('app'), 0o400);
      await push(second);
      await expectPulled({ unchanged: false, replaced: true }, second, 0o400);
      await chmod(a.template('app'), 0o444);
      await push();
      await expectPulled({ unchanged: false, replaced: true }, undefined, 0o444);
      await expectPulled({ unchanged: true }, undefined, 0o444);
      // The clone is still one of the stack.
      expect(await b.registry.cloneForVm('vm', 'app')).toMatchObject({ sourceSha256: sha256, reused: true });
    });

    test('what is verified before anything is fetched can refuse the artifact', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app');
      const { digest } = await a.registry.pushStack('app', `${registry}/app:1`);
      const seen: unknown[] = [];
      const verify = async (artifact: object) => {
        seen.push(artifact);
        throw new Error('not signed');
      };
      await expect(b.registry.pullStack(`${registry}/app:1`, { verify })).rejects.toThrow('not signed');
      expect(seen).toEqual([{ reference: `${registry}/app:1`, digest }]);
      await rejection(
        b.registry.pullStack(`${registry}/app:1`, { expectedSha256: '0'.repeat(64) }),
        'DIGEST_MISMATCH',
      );
      expect(await exists(b.template('app'))).toBe(false);
    });

    test('an abort ends a pull whose verify never ends', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      await publishFiles(a, 'app', { megabytes: 1 });
      await a.registry.pushStack('app', `${registry}/app:1`);
      const controller = new AbortController();
      const { signal } = controller;
      const seen: unknown[] = [];
      const verify = (artifact: { readonly signal: AbortSignal | undefined }) => {
        seen.push(artifact.signal);
        setImmediate(() => controller.abort());
        return new Promise<void>(() => {});
      };
      await rejection(b.registry.pullStack(`${registry}/app:1`, { verify, signal }), 'ABORT_ERR');
      expect(seen).toEqual([signal]);
    });

    test('a limit on its bytes refuses an image before any of its blobs is fetched', async () => {
      const { host: registry } = await startOciRegistry();
      const proxy = await startFaultyProxy(registry);
      const [a, b] = [await hostFor([registry]), await hostFor([proxy.host])];
      await publishFiles(a, 'app', { megabytes: 2 });
      const { sizeBytes } = await a.registry.pushStack('app', `${registry}/app:1`);
      const blobs: string[] = [];
      proxy.rule = ({ url }) => {
        if (url.includes('/blobs/')) blobs.push(url);
        return undefined;
      };
      const pull = (maxBytes: number) =>
        b.registry.pullStack(`${proxy.host}/app:1`, { limits: { maxBytes } });
      const error = await rejection(pull(sizeBytes - 1), 'SOURCE_TOO_LARGE');
      expect(error.message).toContain('limits.maxBytes');
      expect(blobs).toEqual([]);
      expect(await partialPulls(b)).toEqual([]);
      expect(await pull(sizeBytes)).toMatchObject({ sizeBytes });
    });

    test('bad references, unknown hosts and missing tags are told apart, and the catalog stays as it was', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostFor([registry]);
      await publishFiles(a, 'app');
      const { pullStack, pushStack } = a.registry;
      const pull = pullStack.bind(a.registry);
      const push = pushStack.bind(a.registry);
      for (const bad of [
        '',
        'app',
        'app:1',
        `${registry}/UPPER:1`,
        `${registry}/a@sha256:12`,
        `${registry}/../a`,
      ])
        await rejection(pull(bad), 'REFERENCE_INVALID');
      await rejection(push('app', `${registry}/app@sha256:${'0'.repeat(64)}`), 'REFERENCE_INVALID');
      await rejection(push('app', `${registry}/app:1`, { base: 'other.example/app:1' }), 'REFERENCE_INVALID');
      await rejection(pull(`${registry}/app:missing`), 'REGISTRY_NOT_FOUND');
      await rejection(push('missing', `${registry}/app:1`), 'STACK_NOT_FOUND');
      await rejection(pull(`${registry}/app:1`, { name: '../x' }), 'INVALID_STACK_NAME');
      await rejection(pull(`${registry}/app:1`, { concurrency: 0 }), 'INVALID_ARGUMENT');
      await rejection(push('app', `${registry}/app:1`, { level: 23 }), 'INVALID_ARGUMENT');
      expect((await readdir(a.templateDir)).filter((name) => !name.startsWith('.'))).toEqual(['app']);
    });
  },
);

async function partialPulls(host: Host): Promise<string[]> {
  const folder = join(host.templateDir, '.microvm-rootfs/pulls');
  return (await exists(folder)) ? (await readdir(folder)).filter((name) => !name.startsWith('.')) : [];
}

async function holeBytes(path: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    const { size, blocks } = await file.stat();
    return size - blocks * 512;
  } finally {
    await file.close();
  }
}
