// Pulls that are killed, aborted or run out of space: the catalog is as before, and the next call goes on.
import { execFile, execFileSync } from 'node:child_process';
import { statfsSync } from 'node:fs';
import {
  mkdir,
  open,
  readdir,
  rm,
  stat,
  statfs,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { RootfsRegistry } from '../../src/index.js';
import { exitOf, startChild } from '../fixtures/child.js';
import { startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import type { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs');

async function setting(folder?: string) {
  const { host: registry } = await startOciRegistry();
  const a = await hostFor([registry]);
  const sha256 = await publishFiles(a, 'app');
  await a.registry.pushStack('app', `${registry}/app:1`);
  const proxy = await startFaultyProxy(registry);
  return { proxy, host: await hostFor([proxy.host], folder), sha256, reference: `${proxy.host}/app:1` };
}

const pullsOf = (host: Host) => join(host.templateDir, '.microvm-rootfs/pulls');

function freeBytes(host: Host): number {
  const { bavail, bsize } = statfsSync(host.root);
  return bavail * bsize;
}

/** To be filled: other tests run on the disks that all share, and would meet ENOSPC. */
function ownDisk(skip: (reason: string) => void): string {
  const reason = lacksRoot() ?? lacks('mkfs.xfs');
  if (reason !== undefined) skip(reason);
  return newWorkspace().disk('xfs', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1']);
}

async function partial(host: Host): Promise<string[]> {
  if (!(await exists(pullsOf(host)))) return [];
  return (await readdir(pullsOf(host))).filter((name) => name.startsWith('sha256-'));
}

describe.skipIf(missing !== undefined)(
  `a pull${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('that is killed at any moment leaves the catalog as it was, and goes on', async () => {
      const { proxy, host, sha256, reference } = await setting();
      const body = `
      const registry = new lib.RootfsRegistry(args.config);
      await registry.pullStack(args.reference, { concurrency: 1, onProgress: ({ step, bytesDone }) => {
        if (step === args.step && bytesDone >= args.bytes) process.kill(process.pid, 'SIGKILL');
      } });`;
      const { config } = host.registry;
      for (const [step, bytes] of [
        ['download', 1],
        ['download', 6 * MiB],
        ['check', 1],
      ] as const) {
        const { signal } = await exitOf(startChild(body, { config, reference, step, bytes }));
        expect(signal).toBe('SIGKILL');
        expect(await exists(host.template('app'))).toBe(false);
        expect(await partial(host)).toHaveLength(1);
      }
      const before = proxy.seen.length;
      const pulled = await host.registry.pullStack(reference);
      expect(pulled).toMatchObject({ sha256, unchanged: false });
      expect(pulled.reusedBytes).toBeGreaterThan(11 * MiB);
      // The manifest and the index, but no pack.
      expect(proxy.seen.length - before).toBeLessThanOrEqual(2);
      expect(await sha256Of(host.template('app'))).toBe(sha256);
      expect(await partial(host)).toEqual([]);
    });

    test('that was interrupted takes nothing on trust: damaged bytes are fetched again', async () => {
      const { proxy, host, sha256, reference } = await setting();
      let blobs = 0;
      proxy.rule = ({ url }) => (url.includes('/blobs/') && ++blobs > 2 ? { status: 403 } : undefined);
      await rejection(host.registry.pullStack(reference, { concurrency: 1 }), 'REGISTRY_UNAUTHORIZED');
      const [name] = await partial(host);
      const image = join(pullsOf(host), name as string, 'stack/rootfs.ext4');
      const { size } = await stat(image);
      await truncate(image, 3 * MiB);
      await truncate(image, size + MiB);
      proxy.rule = () => undefined;
      expect(await host.registry.pullStack(reference)).toMatchObject({ sha256 });
      expect(await sha256Of(host.template('app'))).toBe(sha256);
    });

    test('that could not be placed or checked fails before anything is fetched', async () => {
      const { proxy, host, reference } = await setting();
      await mkdir(host.templateDir, { recursive: true });
      await writeFile(join(host.templateDir, 'file'), '');
      await symlink('nowhere', join(host.templateDir, 'link'));
      await mkdir(join(host.templateDir, 'folder/rootfs.ext4'), { recursive: true });
      const options = { replace: true };
      for (const name of ['file', 'link', 'folder'])
        await rejection(host.registry.pullStack(reference, { name, ...options }), 'TEMPLATE_INVALID');
      const registry = host.anotherRegistry({ e2fsckBin: '/nonexistent/e2fsck' });
      await rejection(registry.pullStack(reference), 'E2FSCK_NOT_FOUND');
      expect(proxy.seen.filter(({ url }) => url.includes('/blobs/'))).toEqual([]);
      expect(await partial(host)).toEqual([]);
    });

    test('whose e2fsck is killed keeps what it fetched', async () => {
      const { proxy, host, sha256, reference } = await setting();
      const e2fsckBin = join(host.root, 'killed-e2fsck');
      await writeFile(e2fsckBin, '#!/bin/sh\nkill -KILL $$\n', { mode: 0o755 });
      const registry = new RootfsRegistry({ ...host.registry.config, e2fsckBin });
      await rejection(registry.pullStack(reference), 'E2FSCK_FAILED');
      expect(await partial(host)).toHaveLength(1);
      const before = proxy.seen.length;
      expect(await host.registry.pullStack(reference)).toMatchObject({ sha256 });
      // The manifest and the index, but no pack.
      expect(proxy.seen.length - before).toBeLessThanOrEqual(2);
    });

    test('that is aborted ends at once, with ABORT_ERR', async () => {
      const { host, reference } = await setting();
      const controller = new AbortController();
      const pulling = host.registry.pullStack(reference, {
        signal: controller.signal,
        onProgress: () => controller.abort(),
      });
      await rejection(pulling, 'ABORT_ERR');
      expect(await exists(host.template('app'))).toBe(false);
      expect(await host.registry.pullStack(reference)).toMatchObject({ name: 'app' });
    });

    test.each(['reuse', 'download'])(
      'whose onProgress throws in the step %s ends with its error',
      async (at) => {
        const { host, reference } = await setting();
        // It has the same chunks.
        if (at === 'reuse') await publishFiles(host, 'other');
        const onProgress = ({ step }: { step: string }) => {
          if (step === at) throw new Error('a fault of the caller');
        };
        await expect(host.registry.pullStack(reference, { onProgress })).rejects.toThrow(
          'a fault of the caller',
        );
        expect(await exists(host.template('app'))).toBe(false);
      },
    );

    test('without space for the data fails before any pack is fetched', async ({ skip }) => {
      const { proxy, host, sha256, reference } = await setting(ownDisk(skip));
      const filler = join(host.root, 'filler');
      await writeFile(filler, '');
      const { bavail, bsize } = await statfs(host.root);
      await promisify(execFile)('fallocate', ['-l', `${bavail * bsize - 6 * MiB}`, filler]);
      const error = await rejection(host.registry.pullStack(reference), 'ENOSPC');
      expect(error.message).toMatch(/needs \d+ bytes/);
      expect(proxy.seen.filter(({ url }) => url.includes('/blobs/'))).toHaveLength(1);
      await truncate(filler, 0);
      expect(await host.registry.pullStack(reference)).toMatchObject({ sha256 });
    });

    test('has its space: others may take the rest of the disk while it runs', async ({ skip }) => {
      const { proxy, host, sha256, reference } = await setting(ownDisk(skip));
      const filler = join(host.root, 'filler');
      let blobs = 0;
      proxy.rule = ({ url }) => {
        // The first is the index. The file system needs a little for itself.
        if (url.includes('/blobs/') && ++blobs === 2)
          execFileSync('fallocate', ['-l', `${freeBytes(host) - 2 * MiB}`, filler]);
        return undefined;
      };
      expect(await host.registry.pullStack(reference)).toMatchObject({ sha256 });
      expect(await exists(filler)).toBe(true);
      await rm(filler);
    });

    test('that fails gives back the space that it has not used', async ({ skip }) => {
      const { proxy, host, reference } = await setting(ownDisk(skip));
      const before = freeBytes(host);
      let blobs = 0;
      let least = before;
      proxy.rule = ({ url }) => {
        if (!url.includes('/blobs/') || ++blobs === 1) return undefined;
        least = Math.min(least, freeBytes(host));
        return { status: 403 };
      };
      await rejection(host.registry.pullStack(reference), 'REGISTRY_UNAUTHORIZED');
      expect(before - least).toBeGreaterThan(10 * MiB);
      expect(before - freeBytes(host)).toBeLessThan(2 * MiB);
    });

    test.each(['the next one', 'gc'])('that nobody has continued for a week is removed by %s', async (by) => {
      const { host, reference } = await setting();
      const old = join(pullsOf(host), `sha256-${'0'.repeat(64)}`);
      const recent = join(pullsOf(host), `sha256-${'1'.repeat(64)}`);
      for (const path of [old, recent]) await mkdir(path, { recursive: true });
      const eightDaysAgo = Date.now() / 1000 - 8 * 24 * 3600;
      await utimes(old, eightDaysAgo, eightDaysAgo);
      if (by === 'gc') await host.registry.gc({ keep: [], dryRun: true });
      expect(await exists(old)).toBe(true);
      await (by === 'gc' ? host.registry.gc({ keep: [] }) : host.registry.pullStack(reference));
      for (let tries = 0; tries < 100 && (await exists(old)); tries++) await sleep(20);
      expect(await exists(old)).toBe(false);
      expect(await exists(recent)).toBe(true);
    });

    test('counts in usage, is named where the disk is full, and makes room after a week', async ({
      skip,
    }) => {
      const { host, sha256, reference } = await setting(ownDisk(skip));
      const other = join(pullsOf(host), `sha256-${'0'.repeat(64)}`);
      await mkdir(join(other, 'stack'), { recursive: true });
      const left = join(other, 'stack/rootfs.ext4');
      const bytes = Math.floor((freeBytes(host) - 6 * MiB) / 4096) * 4096;
      execFileSync('fallocate', ['-l', `${bytes}`, left]);
      const { partialPullBytes, totalBytes } = await host.registry.usage();
      expect(partialPullBytes).toBe(bytes);
      expect(totalBytes).toBeGreaterThanOrEqual(bytes);
      const error = await rejection(host.registry.pullStack(reference), 'ENOSPC');
      expect(error.message).toContain(`hold ${bytes} bytes in ${pullsOf(host)}`);
      const eightDaysAgo = Date.now() / 1000 - 8 * 24 * 3600;
      for (const path of [left, join(other, 'stack'), other]) await utimes(path, eightDaysAgo, eightDaysAgo);
      expect(await host.registry.pullStack(reference)).toMatchObject({ sha256 });
      expect(await exists(other)).toBe(false);
      expect(await host.registry.usage()).toMatchObject({ partialPullBytes: 0 });
    });

    test('uses no chunk of a damaged template, and names it', async () => {
      const { host, sha256, reference } = await setting();
      await publishFiles(host, 'mine', { different: [2] });
      const known = await host.registry.pullStack(reference, { name: 'first' });
      expect(known.reusedBytes).toBeGreaterThan(8 * MiB);
      await host.registry.removeStack('first');
      // Other bytes under the times that a record knows: as a faulty disk gives them.
      const { atime, mtime } = await stat(host.template('mine'));
      const file = await open(host.template('mine'), 'r+');
      for (let at = 0; at < 128 * MiB; at += 64 * 1024) await file.write(Buffer.from('x'), 0, 1, at);
      await file.close();
      await utimes(host.template('mine'), atime, mtime);
      expect(await host.registry.pullStack(reference, { name: 'second' })).toMatchObject({ sha256 });
      expect(await sha256Of(host.template('second'))).toBe(sha256);
    });
  },
);
