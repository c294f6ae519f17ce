// A host whose folders a version before 0.1.0 made: all that is there serves on, and nothing is made or read again.
import { execFileSync } from 'node:child_process';
import { chmod, copyFile, mkdir, rename, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { allocatedBytes, exists, sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, run } from '../fixtures/images.js';

const WRITABLE = { writable: true } as const;
const SIZE = 16 * MiB;
const GROWN = 32 * MiB;

/** As it was written then, with a packed copy of the template as sealed image. */
async function earlierHost(path: string): Promise<{ host: Host; digest: string; sealed: string }> {
  const host = await Host.in(path);
  const template = await host.addExt4Template('debian', SIZE);
  const digest = await sha256Of(template);
  const state = join(host.clonesDir, '.microvm-rootfs');
  for (const name of ['staging', 'trash', 'sealed', 'pool', 'stacks', 'snapshots/paused'])
    await mkdir(join(state, name), { recursive: true });
  await symlink('debian', join(state, 'stacks', digest));
  const seal = async (sizeBytes: number) => {
    const folder = join(state, 'sealed', `${digest}-${sizeBytes}`);
    const image = join(folder, 'rootfs.ext4');
    await mkdir(folder);
    execFileSync('cp', ['--reflink=never', '--sparse=always', template, image]);
    if (sizeBytes > SIZE) await run('resize2fs', [image, `${sizeBytes / 1024}K`]);
    await chmod(image, 0o444);
    const of = await fileState(template);
    const record = {
      version: 1,
      templatePath: template,
      template: { inode: of.inode, sizeBytes: of.sizeBytes, mtimeNs: of.mtimeNs },
      sha256: digest,
      sizeBytes,
      image: await fileState(image),
      extents: 5,
    };
    await writeFile(join(folder, 'record.json'), JSON.stringify(record));
    return image;
  };
  const sealed = await seal(SIZE);
  const grown = await seal(GROWN);

  const clone = async (folder: string, image: string, sidecars: Record<string, string> = {}) => {
    await mkdir(folder);
    execFileSync('cp', ['--reflink=always', image, join(folder, 'rootfs.ext4')]);
    await chmod(join(folder, 'rootfs.ext4'), 0o644);
    for (const [name, text] of Object.entries({ '.sha256': digest, ...sidecars }))
      await writeFile(join(folder, `rootfs.ext4${name}`), text);
  };
  await clone(host.slot('vm-1').path, sealed);
  await clone(host.slot('vm-2').path, grown, { '.size': `${GROWN}` });
  await clone(host.slot('vm_3').path, sealed, { '.id': 'vm/3' });
  await chmod(host.slot('vm_3').stamp, 0o1644);
  const tag = sha256(template).slice(0, 16);
  await clone(join(state, 'pool', `${digest}-${SIZE}-t${tag}-reflink-2ec9-b1cc0c5f1c700c2b-0`), sealed);
  const { inode, sizeBytes, mtimeNs } = await fileState(template);
  const kept = { templatePath: template, template: { inode, sizeBytes, mtimeNs } };
  await writeFile(join(state, 'pool', `${digest}-t${tag}.json`), JSON.stringify(kept));

  const snapshot = join(state, 'snapshots/paused');
  await copyFile(template, join(snapshot, 'rootfs.ext4'));
  const head = {
    version: 1,
    vmId: 'vm-1',
    stack: 'debian',
    sourceSha256: digest,
    createdAt: new Date().toISOString(),
    sizes: { 'rootfs.ext4': SIZE },
  };
  const manifest = `# microvm-rootfs snapshot ${JSON.stringify(head)}\n${digest}  rootfs.ext4\n`;
  await writeFile(join(snapshot, 'SHA256SUMS'), manifest);
  return { host, digest, sealed };
}

async function fileState(path: string) {
  const { ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return { inode: `${ino}`, sizeBytes: Number(size), mtimeNs: `${mtimeNs}`, ctimeNs: `${ctimeNs}` };
}

describeEachFilesystem(
  ({ path }) => {
    test('its slots, sealed images, ready slots and snapshots serve on', async () => {
      const { host, digest, sealed } = await earlierHost(path);
      const { registry } = host;
      const before = (await stat(sealed)).ino;
      expect(await registry.recover()).toMatchObject({
        sealedRemoved: 0,
        pooledRemoved: 0,
        tornSlots: [],
        unstamped: [],
        unknown: [],
      });
      expect(await registry.readySlots()).toMatchObject([{ stack: 'debian', sizeBytes: SIZE, count: 1 }]);
      const whole = { health: 'whole', stack: 'debian', sourceSha256: digest };
      expect(await registry.slot('vm-1')).toMatchObject({ ...whole, grown: false });
      expect(await registry.slot('vm-2')).toMatchObject({ ...whole, grown: true, sizeBytes: GROWN });
      expect(await registry.slot('vm/3')).toMatchObject({ ...whole, rawId: 'vm/3' });
      for (const id of ['vm-1', 'vm/3'])
        expect((await registry.cloneForVm(id, 'debian', WRITABLE)).reused).toBe(true);
      expect((await registry.cloneForVmWithSize('vm-2', 'debian', GROWN, WRITABLE)).reused).toBe(true);

      await registry.cloneForVm('vm-4', 'debian', WRITABLE);
      await registry.cloneForVmWithSize('vm-5', 'debian', GROWN, WRITABLE);
      expect((await stat(sealed)).ino).toBe(before);
      expect(await registry.sealedImages()).toMatchObject([{ sizeBytes: SIZE }, { sizeBytes: GROWN }]);
      expect(await registry.restoreSnapshot('paused', 'vm-6')).toMatchObject({ sourceSha256: digest });
      expect(await registry.verify({ clones: true })).toMatchObject({ sealedImages: 2, differences: [] });
      expect(await sha256Of(host.slot('vm-4').image)).toBe(digest);
    });

    test('a replaced template takes its sealed images with it, and no slot', async () => {
      const { host, digest, sealed } = await earlierHost(path);
      await host.registry.stacks();
      const next = join(host.root, 'next.ext4');
      await run('mke2fs', ['-q', '-t', 'ext4', '-L', 'next', next, `${SIZE / 1024}K`]);
      await rename(next, host.template('debian'));
      expect((await host.registry.cloneForVm('vm-4', 'debian', WRITABLE)).sourceSha256).not.toBe(digest);
      await host.registry.drain();
      await host.registry.recover();
      expect(await exists(sealed)).toBe(false);
      expect(await host.registry.readySlots()).toEqual([]);
      expect(await sha256Of(host.slot('vm-1').image)).toBe(digest);
      for (const id of ['vm-1', 'vm-2', 'vm/3']) expect(await host.registry.release(id)).toBe(true);
      expect(await allocatedBytes(host.slot('vm-4').image)).toBeGreaterThan(0);
    });
  },
  ({ name }) => name === 'XFS' || name === 'btrfs',
);
