// A stack whose folder is a mount point: a disk of its own, or a bind mount.
import { execFile } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Host } from '../fixtures/host.js';
import { MiB, makeExt4Image } from '../fixtures/images.js';
import { makeLayout } from '../fixtures/oci-layout.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const execute = promisify(execFile);
const missing = lacksRoot() ?? lacks('mke2fs', 'skopeo', 'umoci');
const GUEST = process.arch === 'arm64' ? 'arm64' : 'amd64';

async function mountedStack(): Promise<{ host: Host; folder: string; image: string }> {
  const host = await Host.in();
  const folder = dirname(host.template('own'));
  await mkdir(folder);
  await execute('mount', ['-t', 'tmpfs', '-o', 'size=256m', 'tmpfs', folder]);
  onTestFinished(async () => {
    await host.registry.close();
    await execute('umount', [folder]);
  });
  const image = join(host.root, 'image');
  await makeExt4Image(image, 4 * MiB);
  return { host, folder, image };
}

describe.skipIf(missing !== undefined)(`a mount point${missing === undefined ? '' : ` (${missing})`}`, () => {
  test('takes an image, another in its place, and stays when they go', async () => {
    const { host, folder, image } = await mountedStack();
    expect(await host.registry.publishStack('own', image)).toMatchObject({ replaced: false });
    await makeExt4Image(image, 8 * MiB);
    const { sha256 } = await host.registry.publishStack('own', image, { replace: true });
    expect((await host.registry.stack('own'))?.sha256).toBe(sha256);
    expect(await readdir(folder)).toEqual(['rootfs.ext4']);
    expect(await host.registry.removeStack('own')).toBe(true);
    expect(await readdir(folder)).toEqual([]);
  });

  test('takes a container image with its config', async () => {
    const { host, folder, image } = await mountedStack();
    const layout = join(host.root, 'layout');
    await makeLayout(layout, [{ layers: ['echo 1 > a'], config: { Cmd: ['one'] }, architecture: GUEST }]);
    await host.registry.publishStack('own', image);
    await writeFile(join(folder, '.rootfs.ext4.incoming'), 'left by a kill');
    await host.registry.publishStack('own', `oci:${layout}`, { replace: true });
    expect((await host.registry.stack('own'))?.image?.cmd).toEqual(['one']);
    expect(await readdir(folder)).toHaveLength(2);
  });
});
