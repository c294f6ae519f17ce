// Disks that other tools have pushed, as the one layer of an artifact.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, stat, statfs, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { describe, expect, test, vi } from 'vitest';
import { exitOf, startChild } from '../fixtures/child.js';
import { startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists, sha256, sha256Of } from '../fixtures/files.js';
import { hostFor } from '../fixtures/fleet.js';
import { Host } from '../fixtures/host.js';
import { MiB, run } from '../fixtures/images.js';
import { pushIndex, pushLayers } from '../fixtures/oci-push.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { makeTar } from '../fixtures/tars.js';
import { lacks } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const missing = lacks('docker-registry', 'zstd', 'xz', 'qemu-img', 'mke2fs', 'debugfs', 'tar');

interface Setting {
  readonly registry: string;
  readonly proxy: Awaited<ReturnType<typeof startFaultyProxy>>;
  readonly host: Host;
  readonly disk: Buffer;
  /** Runs a program on the disk, and reads the file that it makes. */
  made(program: string, ...args: string[]): Promise<Buffer>;
}

async function setting(): Promise<Setting> {
  const { host: registry } = await startOciRegistry();
  const proxy = await startFaultyProxy(registry);
  const host = await hostFor([proxy.host]);
  const path = join(host.root, 'disk.ext4');
  const files = join(host.root, 'files');
  await mkdir(files);
  await writeFile(join(files, 'data'), Buffer.alloc(5 * MiB, 'not all zeros '));
  await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', files, path, '24M']);
  const made = async (program: string, ...args: string[]) => {
    const to = join(host.root, 'made');
    execFileSync(
      program,
      args.map((arg) => arg.replace(/\b(FROM|TO)\b/g, (name) => (name === 'TO' ? to : path))),
    );
    return readFile(to);
  };
  return { registry, proxy, host, disk: await readFile(path), made };
}

async function partial(host: Host): Promise<string[]> {
  const pulls = join(host.templateDir, '.microvm-rootfs/pulls');
  return (await exists(pulls)) ? (await readdir(pulls)).filter((name) => name.startsWith('sha256-')) : [];
}

describe.skipIf(missing !== undefined)(
  `a disk of another tool${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('that fills the file system is removed, so that others have room', async () => {
      const { registry, proxy, disk } = await setting();
      await pushLayers(registry, 'a/disk', '1', [{ content: disk }]);
      const small = newWorkspace().mount('small', ['-t', 'tmpfs', '-o', `size=${4 * MiB}`, 'tmpfs']);
      const host = await hostFor([proxy.host], small);
      const pulling = host.registry.pullStack(`${proxy.host}/a/disk:1`);
      await rejection(pulling, 'ENOSPC');
      const { bavail, bsize } = await statfs(small);
      expect(bavail * bsize).toBeGreaterThan(3 * MiB);
    });

    test.each<[string, string, (setting: Setting) => Buffer | Promise<Buffer>]>([
      ['raw', 'raw', ({ disk }) => disk],
      ['gzip', 'gzip', ({ disk }) => gzipSync(disk)],
      ['zstd', 'zstd', ({ made }) => made('zstd', '-q', '-f', 'FROM', '-o', 'TO')],
      ['xz', 'xz', ({ made }) => made('sh', '-c', 'xz -T1 -c FROM > TO')],
      ['qcow2', 'qcow2', ({ made }) => made('qemu-img', 'convert', '-q', '-O', 'qcow2', 'FROM', 'TO')],
      [
        'qcow2 in gzip',
        'gzip',
        async ({ made }) => gzipSync(await made('qemu-img', 'convert', '-q', '-O', 'qcow2', 'FROM', 'TO')),
      ],
    ])('%s: becomes a stack', async (_, format, layerOf) => {
      const all = await setting();
      const { registry, proxy, host, disk } = all;
      const content = await layerOf(all);
      const title = { 'org.opencontainers.image.title': '../../disk' };
      const { digest } = await pushLayers(registry, 'disks/debian', '1', [{ content, annotations: title }]);
      const steps = new Set<string>();
      const pulled = await host.registry.pullStack(`${proxy.host}/disks/debian:1`, {
        onProgress: ({ step }) => steps.add(step),
      });
      expect(pulled).toMatchObject({
        name: 'debian',
        digest,
        sha256: sha256(disk),
        sizeBytes: 24 * MiB,
        format,
        downloadedBytes: content.length,
        reusedBytes: 0,
        replaced: false,
        unchanged: false,
      });
      expect([...steps]).toEqual([
        'download',
        ...(format === 'raw' || format === 'qcow2' ? [] : ['unpack']),
        'check',
      ]);
      expect(await sha256Of(host.template('debian'))).toBe(sha256(disk));
      const { mode, blocks } = await stat(host.template('debian'));
      expect(mode & 0o777).toBe(0o444);
      expect(blocks * 512).toBeLessThan(16 * MiB);
      expect(await host.stagedInCatalog()).toEqual([]);
      expect(await partial(host)).toEqual([]);
      const before = proxy.seen.length;
      const again = await host.registry.pullStack(`${proxy.host}/disks/debian:1`);
      expect(again).toMatchObject({ sha256: sha256(disk), format, unchanged: true, downloadedBytes: 0 });
      expect(proxy.seen.length - before).toBe(1);
    });

    test('KubeVirt: the only file of the folder disk, in a container image of one layer', async () => {
      const { registry, proxy, host, disk } = await setting();
      const tar = makeTar([
        { path: './disk/', type: '5' },
        { path: './disk/debian.img', contents: disk },
      ]);
      await pushLayers(registry, 'disk', '1', [{ content: gzipSync(tar) }], { image: true });
      const pulled = await host.registry.pullStack(`${proxy.host}/disk:1`);
      expect(pulled).toMatchObject({ sha256: sha256(disk), format: 'gzip' });
      const two = makeTar([
        { path: 'disk/a.img', contents: disk },
        { path: 'disk/b.img', contents: disk },
      ]);
      await pushLayers(registry, 'disk', '2', [{ content: two }], { image: true });
      const error = await rejection(
        host.registry.pullStack(`${proxy.host}/disk:2`, { replace: true }),
        'ARTIFACT_INVALID',
      );
      expect(error.message).toMatch(/holds files, not a disk/);
      // And not back to a command that would name this one.
      expect(error.message).toContain('once the tool that pushed it has fetched them');
      expect(await partial(host)).toEqual([]);
    });

    test('a container image of one layer is refused when its first bytes have come', async () => {
      const { registry, proxy, host } = await setting();
      const contents = Buffer.alloc(8 * MiB);
      for (let i = 0; i < contents.length; i += 4) contents.writeUInt32LE((i * 2654435761) >>> 0, i);
      const tar = makeTar([
        { path: 'bin/', type: '5' },
        { path: 'bin/sh', contents },
      ]);
      for (const content of [tar, gzipSync(tar)]) {
        await pushLayers(registry, 'debian', '12', [{ content }], { image: true });
        let bytes = 0;
        const pulling = host.registry.pullStack(`${proxy.host}/debian:12`, {
          onProgress: ({ bytesDone }) => {
            bytes = bytesDone;
          },
        });
        const error = await rejection(pulling, 'ARTIFACT_INVALID');
        expect(error.message).toContain(`publishStack('NAME', 'docker://${proxy.host}/debian:12')`);
        expect(bytes).toBeLessThan(MiB);
      }
    });

    test('podman machine: of several disks for one platform that for QEMU', async () => {
      const { registry, proxy, host, disk } = await setting();
      // podman has the kernel's names.
      const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'x86_64' : 'aarch64' };
      const push = async (tag: string, content: Buffer) => ({
        ...(await pushLayers(registry, 'machine', tag, [{ content, mediaType: 'application/zstd' }])),
        platform,
      });
      const container = {
        ...(await push('c', makeTar([{ path: 'bin/sh', contents: Buffer.from('x') }]))),
        platform: { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : 'arm64' },
      };
      const hyperv = await push('h', Buffer.from('a disk for another hypervisor'));
      const qemu = await push('q', disk);
      await pushIndex(registry, 'machine', '5.0', [
        container,
        { ...hyperv, annotations: { disktype: 'hyperv' } },
        { ...qemu, annotations: { disktype: 'qemu' } },
      ]);
      const pulled = await host.registry.pullStack(`${proxy.host}/machine:5.0`);
      expect(pulled).toMatchObject({ digest: qemu.digest, sha256: sha256(disk) });
    });

    test('goes on where it was killed, and takes nothing on trust', async () => {
      const { registry, proxy, host, disk, made } = await setting();
      const content = await made('qemu-img', 'convert', '-q', '-O', 'qcow2', 'FROM', 'TO');
      await pushLayers(registry, 'raw', '1', [{ content: disk }]);
      await pushLayers(registry, 'qcow2', '1', [{ content }]);
      const body = `
        const registry = new lib.RootfsRegistry(args.config);
        await registry.pullStack(args.reference, { onProgress: ({ step, bytesDone }) => {
          if (step === args.step && bytesDone >= args.bytes) process.kill(process.pid, 'SIGKILL');
        } });`;
      const { config } = host.registry;
      for (const [name, size] of [
        ['raw', disk.length],
        ['qcow2', content.length],
      ] as const) {
        const reference = `${proxy.host}/${name}:1`;
        for (const [step, bytes] of [
          ['download', 2 * MiB],
          ['check', 1],
        ] as const) {
          const { signal } = await exitOf(startChild(body, { config, reference, step, bytes }));
          expect(signal).toBe('SIGKILL');
          expect(await exists(host.template(name))).toBe(false);
          expect(await partial(host)).toHaveLength(1);
        }
        const before = proxy.seen.length;
        const pulled = await host.registry.pullStack(reference);
        expect(pulled).toMatchObject({ sha256: sha256(disk), downloadedBytes: 0, reusedBytes: size });
        // The manifest.
        expect(proxy.seen.length - before).toBe(1);
        expect(await partial(host)).toEqual([]);
      }
    });

    test.each([
      ['xz', 'xz -T1 -c FROM > TO'],
      ['qemu-img', 'qemu-img convert -q -O qcow2 FROM TO'],
    ])('a killed %s is not the fault of the disk: the layer stays', async (program, command) => {
      const { registry, proxy, host, disk, made } = await setting();
      const content = await made('sh', '-c', command);
      await pushLayers(registry, 'disk', '1', [{ content }]);
      await writeFile(join(host.root, program), '#!/bin/sh\nkill -KILL $$\n', { mode: 0o755 });
      vi.stubEnv('PATH', `${host.root}:${process.env.PATH}`);
      try {
        const error = await rejection(host.registry.pullStack(`${proxy.host}/disk:1`), 'PROGRAM_FAILED');
        expect(error.message).toContain(`${program} was killed by SIGKILL`);
      } finally {
        vi.unstubAllEnvs();
      }
      expect(await partial(host)).toHaveLength(1);
      const pulled = await host.registry.pullStack(`${proxy.host}/disk:1`);
      expect(pulled).toMatchObject({ sha256: sha256(disk), downloadedBytes: 0 });
    });

    test('damaged bytes of an interrupted pull, or of the registry, are fetched again', async () => {
      const { registry, proxy, host, disk } = await setting();
      await pushLayers(registry, 'disk', '1', [{ content: disk }]);
      const reference = `${proxy.host}/disk:1`;
      const controller = new AbortController();
      const pulling = host.registry.pullStack(reference, {
        signal: controller.signal,
        onProgress: ({ bytesDone }) => bytesDone > 2 * MiB && controller.abort(),
      });
      await rejection(pulling, 'ABORT_ERR');
      const [name] = await partial(host);
      const layer = join(host.templateDir, '.microvm-rootfs/pulls', name as string, 'layer');
      await truncate(layer, MiB);
      await truncate(layer, 2 * MiB);
      expect(await host.registry.pullStack(reference)).toMatchObject({ sha256: sha256(disk) });

      let blobs = 0;
      proxy.rule = ({ url }) => (url.includes('/blobs/') && blobs++ < 1 ? { flip: 5000 } : undefined);
      const once = await host.registry.pullStack(reference, { name: 'once' });
      expect(once).toMatchObject({ sha256: sha256(disk) });
      proxy.rule = ({ url }) => (url.includes('/blobs/') ? { flip: 5000 } : undefined);
      await rejection(host.registry.pullStack(reference, { name: 'never' }), 'DIGEST_MISMATCH');
      expect(await exists(host.template('never'))).toBe(false);
      expect(await partial(host)).toEqual([]);
    });

    test('a registry that sends all of it for a range is taken at its word', async () => {
      const { registry, proxy, host, disk } = await setting();
      await pushLayers(registry, 'disk', '1', [{ content: disk }]);
      proxy.rule = ({ url }) => (url.includes('/blobs/') ? { ignoreRange: true } : undefined);
      const pulled = await host.registry.pullStack(`${proxy.host}/disk:1`);
      expect(pulled.sha256).toBe(sha256(disk));
      expect(pulled.downloadedBytes).toBeLessThan(disk.length + MiB);
    });

    test.each<[string, Buffer[], string, RegExp]>([
      ['what is no disk', [Buffer.alloc(100_000, 'words ')], 'IMAGE_INVALID', /no ext4 file system in/],
      ['an empty layer', [Buffer.alloc(0)], 'IMAGE_INVALID', /no ext4 file system in/],
      [
        'a cut-off gzip',
        [gzipSync(Buffer.alloc(100_000, 'words ')).subarray(0, 100)],
        'IMAGE_INVALID',
        /truncated/,
      ],
      ['compressed twice', [gzipSync(gzipSync('words'))], 'ARTIFACT_INVALID', /compressed or packed twice/],
      ['another compression', [brotliCompressSync(Buffer.alloc(9000, 'x'))], 'IMAGE_INVALID', /no ext4/],
      [
        'two layers',
        [Buffer.alloc(4096), Buffer.alloc(5)],
        'ARTIFACT_INVALID',
        /with 2 layers: no stack.* use publishStack\('NAME', 'docker:\/\/[^']+\/disk:1'\)/,
      ],
    ])('%s is refused, and leaves nothing', async (_, layers, code, message) => {
      const { registry, proxy, host } = await setting();
      await pushLayers(
        registry,
        'disk',
        '1',
        layers.map((content) => ({ content })),
      );
      const error = await rejection(host.registry.pullStack(`${proxy.host}/disk:1`), code);
      expect(error.message).toMatch(message);
      expect(error.message).toContain(`${proxy.host}/disk:1`);
      expect(await exists(host.template('disk'))).toBe(false);
      expect(await partial(host)).toEqual([]);
    });

    test('expectedSha256 is that of the image, or of what it was before its journal was replayed', async () => {
      const { registry, proxy, host, disk } = await setting();
      const path = join(host.root, 'dirty');
      await writeFile(path, disk);
      // Not unmounted: it has to be checked, and changes by that.
      execFileSync('debugfs', ['-w', '-R', 'set_super_value state 0', path], { stdio: 'ignore' });
      const dirty = await readFile(path);
      await pushLayers(registry, 'disk', '1', [{ content: gzipSync(dirty) }]);
      const reference = `${proxy.host}/disk:1`;
      const wrong = { expectedSha256: '0'.repeat(64) };
      await rejection(host.registry.pullStack(reference, wrong), 'DIGEST_MISMATCH');
      const expected = { expectedSha256: sha256(dirty).toUpperCase() };
      const first = await host.registry.pullStack(reference, expected);
      expect(first.sha256).not.toBe(sha256(dirty));
      for (const options of [expected, {}, { expectedSha256: first.sha256 }]) {
        const again = await host.registry.pullStack(reference, options);
        expect(again).toMatchObject({ unchanged: true, sha256: first.sha256 });
      }
      await rejection(host.registry.pullStack(reference, { ...wrong, replace: true }), 'DIGEST_MISMATCH');
      // Another image under the name is not replaced unasked, and not fetched.
      await pushLayers(registry, 'disk', '2', [{ content: disk }]);
      const before = proxy.seen.length;
      await rejection(host.registry.pullStack(`${proxy.host}/disk:2`), 'STACK_EXISTS');
      expect(proxy.seen.length - before).toBe(1);
    });

    test('killed when the stack has just appeared: the next call finds it unchanged', async () => {
      const { registry, proxy, host, disk } = await setting();
      await pushLayers(registry, 'disk', '1', [{ content: gzipSync(disk) }]);
      const reference = `${proxy.host}/disk:1`;
      const body = `
        const registry = new lib.RootfsRegistry(args.config);
        void registry.pullStack(args.reference);
        const { existsSync } = require('node:fs');
        setInterval(() => existsSync(args.path) && process.kill(process.pid, 'SIGKILL'), 0);`;
      const path = host.template('disk');
      await exitOf(startChild(body, { config: host.registry.config, reference, path }));
      expect(await exists(path)).toBe(true);
      expect(await host.registry.pullStack(reference)).toMatchObject({ unchanged: true });
      expect(await partial(host)).toEqual([]);
    });

    test('a mirror whose first bytes are wrong refuses nothing: the registry is asked', async () => {
      const { registry, proxy, host, disk } = await setting();
      await pushLayers(registry, 'disk', '1', [{ content: disk }]);
      const tar = makeTar([{ path: 'bin/sh', contents: Buffer.alloc(disk.length) }]).subarray(0, disk.length);
      proxy.rule = ({ url }) => (url.includes('/blobs/') ? { status: 200, body: tar } : undefined);
      const settings = {
        [registry]: { insecure: true, mirrors: [proxy.host] },
        [proxy.host]: { insecure: true },
      };
      const mirrored = await Host.in(undefined, { registries: settings });
      expect(await mirrored.registry.pullStack(`${registry}/disk:1`)).toMatchObject({ sha256: sha256(disk) });
      expect(proxy.seen.some(({ url }) => url.includes('/blobs/'))).toBe(true);
      await host.registry.close();
    });

    test('a hole of a tar is no work: an abort counts, and the event loop goes on', async () => {
      const { registry, proxy, host } = await setting();
      const folder = join(host.root, 'kubevirt', 'disk');
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, 'disk.img'), 'x');
      await truncate(join(folder, 'disk.img'), 500 * 1024 * MiB);
      const tar = join(host.root, 'sparse.tar');
      execFileSync('tar', ['--sparse', '-C', join(folder, '..'), '-cf', tar, 'disk']);
      await pushLayers(registry, 'disk', '1', [{ content: await readFile(tar) }], { image: true });
      let last = performance.now();
      let longest = 0;
      const timer = setInterval(() => {
        longest = Math.max(longest, performance.now() - last);
        last = performance.now();
      }, 5);
      await rejection(host.registry.pullStack(`${proxy.host}/disk:1`), 'IMAGE_INVALID');
      clearInterval(timer);
      expect(longest).toBeLessThan(2000);
      expect(await partial(host)).toEqual([]);
    });

    test('limits bound what a layer may hold', async () => {
      const { registry, proxy, host, disk } = await setting();
      await pushLayers(registry, 'raw', '1', [{ content: disk }]);
      await pushLayers(registry, 'gzip', '1', [{ content: gzipSync(disk) }]);
      const limits = { maxBytes: MiB };
      for (const name of ['raw', 'gzip']) {
        const pulling = host.registry.pullStack(`${proxy.host}/${name}:1`, { limits });
        const error = await rejection(pulling, 'SOURCE_TOO_LARGE');
        expect(error.message).toContain('limits.maxBytes');
      }
      expect(await partial(host)).toEqual([]);
      const unknown = { limits: { maxFiles: 1 } as object };
      await rejection(host.registry.pullStack(`${proxy.host}/raw:1`, unknown), 'INVALID_ARGUMENT');
    });
  },
);
