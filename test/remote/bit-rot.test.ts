// Bytes that rot on the disk of a host that pushes: no registry gets them under the digest of the right ones.
import { copyFile, open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { rot } from '../fixtures/bit-rot.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256Of } from '../fixtures/files.js';
import { hostFor, publishFiles, snapshotPath, takeSnapshot } from '../fixtures/fleet.js';
import type { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const xfs = filesystemNamed('XFS');
const missing = xfs.missing ?? lacks('docker-registry', 'zstd', 'mke2fs');

const files = { megabytes: 4 };

/** In the third file of {@link publishFiles}. */
async function rotData(image: string): Promise<void> {
  await rot(image, (await readFile(image)).indexOf(pattern(4096, 3)));
}

function chunkLists(host: Host): string {
  return join(host.templateDir, '.microvm-rootfs/chunks');
}

describe.skipIf(missing !== undefined)(
  `bit rot${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('a template that has rotted is not pushed, and once it is mended it is', async () => {
      const { host: registry, blobs } = await startOciRegistry();
      const [a, b] = [await hostFor([registry], xfs.path), await hostFor([registry])];
      const sha256 = await publishFiles(a, 'app', files);
      // On another disk: on the same one it would share the blocks.
      const image = join(b.root, 'app.ext4');
      await copyFile(a.template('app'), image);
      await rotData(a.template('app'));
      const error = await rejection(a.registry.pushStack('app', `${registry}/app:1`), 'TEMPLATE_CORRUPT');
      expect(error.message).toContain(a.template('app'));
      expect(await blobs()).toEqual([]);
      expect(await readdir(chunkLists(a)).catch(() => [])).toEqual([]);
      await a.registry.publishStack('app', image, { replace: true });
      expect(await a.registry.pushStack('app', `${registry}/app:1`)).toMatchObject({ sha256 });
      expect(await b.registry.pullStack(`${registry}/app:1`)).toMatchObject({ sha256 });
    });

    test('a template that rots after its chunks were listed moves no tag', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry], xfs.path), await hostFor([registry])];
      const sha256 = await publishFiles(a, 'app', files);
      await a.registry.pushStack('app', `${registry}/app:1`);
      await rotData(a.template('app'));
      // Nothing is read for a tag that has the packs already.
      await a.registry.pushStack('app', `${registry}/app:1`);
      await rejection(a.registry.pushStack('app', `${registry}/app:2`), 'TEMPLATE_CORRUPT');
      await rejection(b.registry.pullStack(`${registry}/app:2`), 'REGISTRY_NOT_FOUND');
      expect(await b.registry.pullStack(`${registry}/app:1`)).toMatchObject({ sha256 });
    });

    test('a list of chunks that has rotted is made anew', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      const sha256 = await publishFiles(a, 'app', files);
      await a.registry.pushStack('app', `${registry}/app:1`);
      const list = join(chunkLists(a), sha256);
      const before = await readFile(list);
      // The flag of zeros and the digest of the first chunk, and the end.
      for (const [i, at] of [24 + 3, 24 + 8, before.length - 1].entries()) {
        const file = await open(list, 'r+');
        await file.write(Buffer.from([(before[at] as number) ^ 0x80]), 0, 1, at);
        await file.close();
        await a.registry.pushStack('app', `${registry}/again/${i}:1`);
        expect((await readFile(list)).equals(before)).toBe(true);
        const name = `again-${i}`;
        expect(await b.registry.pullStack(`${registry}/again/${i}:1`, { name })).toMatchObject({ sha256 });
        expect(await sha256Of(b.template(name))).toBe(sha256);
      }
    });

    test('a rotten template still gives a pull what is right in it', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry], xfs.path)];
      await publishFiles(a, 'app', files);
      await a.registry.pushStack('app', `${registry}/app:1`);
      await publishFiles(b, 'mine', files);
      await rotData(b.template('mine'));
      const pulled = await b.registry.pullStack(`${registry}/app:1`, { name: 'other' });
      expect(pulled.downloadedBytes).toBeGreaterThan(0);
      expect(pulled.reusedBytes).toBeGreaterThan(3 * MiB);
      expect(await readdir(chunkLists(b))).toEqual([pulled.sha256]);
      await rejection(b.registry.pushStack('mine', `${registry}/mine:1`), 'TEMPLATE_CORRUPT');
    });

    test('a snapshot that rots after it was verified is not pushed', async () => {
      const { host: registry, blobs } = await startOciRegistry();
      const a = await hostFor([registry], xfs.path);
      await publishFiles(a, 'app', files);
      await a.registry.cloneForVm('vm/1', 'app', { writable: true });
      await takeSnapshot(a, 'before');
      await a.registry.restoreSnapshot('before', 'vm-2');
      const disk = join(snapshotPath(a, 'before'), 'rootfs.ext4');
      await rotData(disk);
      const push = a.registry.pushSnapshot('before', `${registry}/vm:1`);
      const error = await rejection(push, 'SNAPSHOT_CORRUPT');
      expect(error.path).toBe(disk);
      expect(await blobs()).toEqual([]);
    });
  },
);
