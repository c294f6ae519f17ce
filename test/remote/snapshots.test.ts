// Snapshots that one host pushes and another pulls and restores, through a real registry.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, open, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { exitOf, startChild } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { startFaultyProxy } from '../fixtures/faulty-proxy.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostFor, hostWithSnapshot, publishFiles, snapshotPath, takeSnapshot } from '../fixtures/fleet.js';
import type { Host } from '../fixtures/host.js';
import { MiB, pattern, run } from '../fixtures/images.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';
import { whileHashing } from '../fixtures/while-hashing.js';

const execute = promisify(execFile);
const missing = lacks('docker-registry', 'zstd', 'mke2fs');

/** A registry that has a snapshot, `reference`, and the host that it was taken on. */
async function pushed() {
  const { host: registry } = await startOciRegistry();
  const a = await hostWithSnapshot([registry]);
  const reference = `${registry}/moves/before:1`;
  return { registry, a, reference, artifact: await a.registry.pushSnapshot('before', reference) };
}

async function partial(host: Host): Promise<string[]> {
  const pulls = join(snapshotPath(host, '.microvm-rootfs'), 'pulls');
  if (!(await exists(pulls))) return [];
  return (await readdir(pulls)).filter((name) => name.startsWith('sha256-'));
}

async function expectSame(from: Host, to: Host, name = 'before'): Promise<void> {
  const [one, other] = [snapshotPath(from, 'before'), snapshotPath(to, name)];
  expect((await readdir(other)).sort()).toEqual((await readdir(one)).sort());
  const sums = 'SHA256SUMS';
  expect(await readFile(join(other, sums))).toEqual(await readFile(join(one, sums)));
  await execute('sha256sum', ['--check', '--strict', '--quiet', sums], { cwd: other });
  for (const file of await readdir(other))
    expect((await stat(join(other, file))).mode).toBe((await stat(join(one, file))).mode);
  expect((await stat(other)).mode).toBe((await stat(one)).mode);
}

describe.skipIf(missing !== undefined)(
  `snapshots of another host${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    describeEachFilesystem(
      (filesystem) => {
        test('are the same files and manifest, and a VM goes on from them without the template', async () => {
          const { a, reference, artifact } = await pushed();
          const b = await hostFor([reference.split('/')[0] as string], filesystem.path);
          const steps = new Set<string>();
          const pulled = await b.registry.pullSnapshot(reference, {
            onProgress: ({ step }) => steps.add(step),
          });
          expect([...steps]).toEqual(['download', 'check']);
          expect(pulled).toMatchObject({
            name: 'before',
            path: snapshotPath(b, 'before'),
            vmId: 'vm/1',
            stack: 'app',
            digest: artifact.digest,
            reusedBytes: 0,
            unchanged: false,
          });
          expect(pulled.files.map(({ name }) => name)).toEqual(['rootfs.ext4', 'vm 1.mem', 'state']);
          expect(artifact.sha256).toBe(await sha256Of(join(pulled.path, 'SHA256SUMS')));
          await expectSame(a, b);
          expect(await partial(b)).toEqual([]);
          // The pull has read the files; no restore does so again. On FUSE times may not tell that they are unchanged.
          let hashed = 0;
          whileHashing(() => hashed++);
          const restored = await b.anotherRegistry().restoreSnapshot('before', 'vm-2');
          if (!filesystem.hidesOpenFiles) expect(hashed).toBe(0);
          expect(restored).toMatchObject({ stack: 'app', sizeBytes: pulled.files[0]?.sizeBytes });
          expect(await sha256Of(restored.path)).toBe(pulled.files[0]?.sha256);
          expect(await sha256Of(restored.files[0] as string)).toBe(pulled.files[1]?.sha256);
          await b.registry.verifySnapshot('before');
          const { digest } = await b.registry.pushSnapshot('before', `${reference}-again`);
          expect(digest).toBe(artifact.digest);
        });
      },
      ({ name, hidesOpenFiles }) => ['XFS', 'btrfs', 'ext4', 'tmpfs'].includes(name) || hidesOpenFiles,
    );

    test('that lie on another file system than the templates are pulled all the same', async () => {
      const { a, reference } = await pushed();
      const b = await hostFor([reference.split('/')[0] as string], filesystemNamed('XFS').path);
      const elsewhere = await hostFor([], filesystemNamed('ext4').path);
      const snapshotsDir = join(elsewhere.root, 'snapshots');
      const registry = b.anotherRegistry({ snapshotsDir });
      const { path } = await registry.pullSnapshot(reference);
      expect(path).toBe(join(snapshotsDir, 'before'));
      const sums = await readFile(join(snapshotPath(a, 'before'), 'SHA256SUMS'));
      expect(await readFile(join(path, 'SHA256SUMS'))).toEqual(sums);
      expect(await registry.restoreSnapshot('before', 'vm-2')).toMatchObject({ strategy: 'copy' });
    });

    test('may have a disk that is longer than its stamp says, as earlier versions took them', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostWithSnapshot([registry]);
      const sums = join(snapshotPath(a, 'before'), 'SHA256SUMS');
      const text = await readFile(sums, 'utf8');
      await writeFile(sums, text.replace('"createdAt"', `"sizeStamp":${MiB},"createdAt"`));
      const pusher = a.anotherRegistry();
      await pusher.restoreSnapshot('before', 'vm-2');
      await pusher.pushSnapshot('before', `${registry}/moves/before:1`);
      const b = await hostFor([registry]);
      await b.registry.pullSnapshot(`${registry}/moves/before:1`);
      await expectSame(a, b);
      await b.registry.restoreSnapshot('before', 'vm-2');
      expect(await readFile(b.slot('vm-2').sizeStamp, 'utf8')).toBe(`${MiB}`);
    });

    test('need only the memory and what changed on the disk, where the template is', async () => {
      const { registry, a, reference } = await pushed();
      await a.registry.pushStack('app', `${registry}/app:1`);
      const b = await hostFor([registry]);
      await b.registry.pullStack(`${registry}/app:1`);
      const told = await b.registry.inspectReference(reference);
      expect(told).toMatchObject({
        artifactType: 'application/vnd.microvm-rootfs.snapshot.v1',
        snapshot: { vmId: 'vm/1', stack: 'app', files: [{ name: 'rootfs.ext4' }, { name: 'vm 1.mem' }, {}] },
      });
      // Of memory 2 MiB cannot be compressed, of the disk 256 KiB were written, and chunks have up to 512 KiB.
      expect(told.missingBytes).toBeLessThan(3.5 * MiB);
      const pulled = await b.registry.pullSnapshot(reference);
      expect(pulled.downloadedBytes).toBeLessThan(3.5 * MiB);
      expect(pulled.reusedBytes).toBeGreaterThan(3 * MiB);
      await expectSame(a, b);
    });

    test('fetch what two of their files hold once, or not at all if the template has it', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostFor([registry]);
      await publishFiles(a, 'app', { megabytes: 4 });
      const { path } = await a.registry.cloneForVm('vm', 'app', { writable: true });
      const memory = join(a.root, 'memory.bin');
      await copyFile(path, memory);
      await a.registry.snapshotSlot('vm', 'before', { with: [memory] });
      const reference = `${registry}/moves/twice:1`;
      await a.registry.pushSnapshot('before', reference);
      await a.registry.pushStack('app', `${registry}/app:1`);
      const [b, c] = [await hostFor([registry]), await hostFor([registry])];
      await c.registry.pullStack(`${registry}/app:1`);
      for (const [host, least, most] of [
        [b, 4 * MiB, 5 * MiB],
        [c, 0, 0],
      ] as const) {
        const { missingBytes } = await host.registry.inspectReference(reference);
        expect(missingBytes).toBeGreaterThanOrEqual(least);
        expect(missingBytes).toBeLessThanOrEqual(most);
        const { downloadedBytes } = await host.registry.pullSnapshot(reference, { name: 'before' });
        // The manifest and the indexes come on top.
        expect(downloadedBytes - (missingBytes as number)).toBeLessThan(100_000);
        await expectSame(a, host);
      }
    });

    test('with the stack as base send only the memory and what changed on the disk', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostWithSnapshot([registry], { megabytes: 24 });
      await a.registry.pushStack('app', `${registry}/app:1`);
      const options = { base: `${registry}/app:1` };
      const sent = await a.registry.pushSnapshot('before', `${registry}/moves:1`, options);
      // A pack of the disk has up to 12 MiB.
      expect(sent.uploadedBytes).toBeLessThan(15 * MiB);
      expect(sent.reusedBytes).toBeGreaterThan(11 * MiB);
      const again = await a.registry.pushSnapshot('before', `${registry}/moves:2`, {
        base: `${registry}/moves:1`,
      });
      expect(again).toMatchObject({ digest: sent.digest, uploadedBytes: 0 });
      const b = await hostFor([registry]);
      await b.registry.pullSnapshot(`${registry}/moves:2`, { name: 'before' });
      await expectSame(a, b);
    });

    test('pass through skopeo, and zstd restores each file without this library', async () => {
      const { a, reference, artifact } = await pushed();
      const { host: other } = await startOciRegistry();
      const layout = join(a.root, 'layout');
      const plain = ['--src-tls-verify=false', '--dest-tls-verify=false'];
      await run('skopeo', ['copy', '-q', ...plain, `docker://${reference}`, `dir:${layout}`]);
      await run('skopeo', ['copy', '-q', ...plain, `dir:${layout}`, `docker://${other}/moved:1`]);
      const b = await hostFor([other]);
      const { digest } = await b.registry.pullSnapshot(`${other}/moved:1`, { name: 'copied' });
      expect(digest).toBe(artifact.digest);
      await expectSame(a, b, 'copied');
      const { layers } = JSON.parse(await readFile(join(layout, 'manifest.json'), 'utf8'));
      const packs = layers
        .filter(
          ({ mediaType, annotations }: { mediaType: string; annotations?: Record<string, string> }) =>
            mediaType.endsWith('raw+zstd') && annotations?.['vnd.microvm-rootfs.file'] === 'vm 1.mem',
        )
        .map(({ digest }: { digest: string }) => digest.replace('sha256:', ''));
      await execute('bash', ['-c', 'cat "$@" | zstd -dqc >memory', 'bash', ...packs], { cwd: layout });
      expect(await sha256Of(join(layout, 'memory'))).toBe(
        await sha256Of(join(snapshotPath(a, 'before'), 'vm 1.mem')),
      );
    });

    test('are pulled once: again is unchanged, another one of that name is not replaced', async () => {
      const { registry, a, reference, artifact } = await pushed();
      const b = await hostFor([registry]);
      const both = [b.registry, b.anotherRegistry()];
      const pulled = await Promise.all(both.map((each) => each.pullSnapshot(reference)));
      expect(pulled.map(({ unchanged }) => unchanged).sort()).toEqual([false, true]);
      const { ino } = await stat(snapshotPath(b, 'before'));
      const again = await b.registry.pullSnapshot(`${registry}/moves/before@${artifact.digest}`);
      expect(again).toMatchObject({ unchanged: true, downloadedBytes: 0, vmId: 'vm/1' });
      expect((await stat(snapshotPath(b, 'before'))).ino).toBe(ino);
      expect((await a.registry.pushSnapshot('before', `${registry}/same:1`)).digest).toBe(artifact.digest);

      await takeSnapshot(a, 'later');
      await a.registry.pushSnapshot('later', `${registry}/moves/before:2`);
      const error = await rejection(b.registry.pullSnapshot(`${registry}/moves/before:2`), 'SNAPSHOT_EXISTS');
      expect(error.path).toBe(snapshotPath(b, 'before'));
      await b.registry.pullSnapshot(`${registry}/moves/before:2`, { name: 'later' });
      await expectSame(a, b);
    });

    test('whose pull is killed are not there, and the next pull goes on', async () => {
      const { registry, a, reference } = await pushed();
      const proxy = await startFaultyProxy(registry);
      const b = await hostFor([proxy.host]);
      const through = reference.replace(registry, proxy.host);
      const body = `
      const registry = new lib.RootfsRegistry(args.config);
      await registry.pullSnapshot(args.reference, { concurrency: 1, onProgress: ({ step, bytesDone }) => {
        if (step === args.step && bytesDone >= args.bytes) process.kill(process.pid, 'SIGKILL');
      } });`;
      const { config } = b.registry;
      for (const [step, bytes] of [
        ['download', 1],
        ['download', 4.5 * MiB],
        ['check', 1],
      ] as const) {
        const { signal } = await exitOf(startChild(body, { config, reference: through, step, bytes }));
        expect(signal).toBe('SIGKILL');
        expect(await exists(snapshotPath(b, 'before'))).toBe(false);
        expect(await partial(b)).toHaveLength(1);
      }
      const before = proxy.seen.length;
      const pulled = await b.registry.pullSnapshot(through);
      expect(pulled.reusedBytes).toBeGreaterThan(6 * MiB);
      // The artifact's manifest, the snapshot's, and three indexes, but no pack.
      expect(proxy.seen.length - before).toBe(5);
      await expectSame(a, b);
      expect(await partial(b)).toEqual([]);
    });

    test('are not taken for stacks, nor stacks for them', async () => {
      const { registry, a, reference } = await pushed();
      await a.registry.pushStack('app', `${registry}/app:1`);
      const b = await hostFor([registry]);
      const noStack = await rejection(b.registry.pullStack(reference), 'ARTIFACT_INVALID');
      expect(noStack.message).toContain('is a snapshot, not a stack: pull it with pullSnapshot');
      const noSnapshot = await rejection(b.registry.pullSnapshot(`${registry}/app:1`), 'ARTIFACT_INVALID');
      expect(noSnapshot.message).toContain('is a stack, not a snapshot: pull it with pullStack');
      expect(await exists(b.clonesDir)).toBe(false);
    });

    test('are refused by verify and by expectedSha256 before anything is fetched', async () => {
      const { registry, reference, artifact } = await pushed();
      const b = await hostFor([registry]);
      const verify = async () => {
        throw new Error('not signed');
      };
      await expect(b.registry.pullSnapshot(reference, { verify })).rejects.toThrow('not signed');
      const wrong = { expectedSha256: '0'.repeat(64) };
      await rejection(b.registry.pullSnapshot(reference, wrong), 'DIGEST_MISMATCH');
      expect(await exists(b.clonesDir)).toBe(false);
      await b.registry.pullSnapshot(reference, { expectedSha256: artifact.sha256 });
    });

    test('that are missing, misnamed or damaged are not pushed', async () => {
      const { registry, a, reference } = await pushed();
      const { registry: host } = a;
      await rejection(host.pushSnapshot('none', reference), 'SNAPSHOT_NOT_FOUND');
      await rejection(host.pushSnapshot('../x', reference), 'INVALID_SNAPSHOT_NAME');
      await rejection(host.pullSnapshot(reference, { name: '.x' }), 'INVALID_SNAPSHOT_NAME');
      await rejection(host.pullSnapshot(reference, { replace: true } as object), 'INVALID_ARGUMENT');
      const memory = await open(join(snapshotPath(a, 'before'), 'vm 1.mem'), 'r+');
      await memory.write(Buffer.from('changed'), 0, 7, 4096);
      await memory.close();
      await rejection(
        a.anotherRegistry().pushSnapshot('before', `${registry}/damaged:1`),
        'SNAPSHOT_CORRUPT',
      );
      await rejection(host.pullSnapshot(`${registry}/damaged:1`), 'REGISTRY_NOT_FOUND');
    });

    test('of many files keep each apart, also equal and empty ones', async () => {
      const { host: registry } = await startOciRegistry();
      const a = await hostFor([registry]);
      await publishFiles(a, 'app', { megabytes: 1 });
      await a.registry.cloneForVm('vm', 'app', { writable: true });
      const folder = join(a.root, 'many');
      await mkdir(folder);
      const files = Array.from({ length: 40 }, (_, i) => join(folder, `file "${i}"`));
      for (const [i, file] of files.entries())
        await writeFile(file, i % 4 === 0 ? '' : pattern(i % 4 === 1 ? 70_000 : i * 5000, i % 4));
      await a.registry.snapshotSlot('vm', 'before', { with: files });
      await a.registry.pushSnapshot('before', `${registry}/many:1`);
      const b = await hostFor([registry]);
      await b.registry.pullSnapshot(`${registry}/many:1`, { name: 'before' });
      await expectSame(a, b);
    });
  },
);
