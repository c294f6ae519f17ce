// What is removed while somebody has it open. FUSE keeps such a file under another name, and its folder with it.
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';

const WRITABLE = { writable: true } as const;

describeEachFilesystem((filesystem) => {
  async function hostWithSlot(): Promise<Host> {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', pattern(MiB));
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await host.registry.drain();
    return host;
  }

  test('trash that is open for another 0.2 s goes with the same sweep', async () => {
    const host = await hostWithSlot();
    const folder = join(host.clonesDir, '.microvm-rootfs', 'trash', 'slot');
    await mkdir(folder);
    await writeFile(join(folder, 'rootfs.ext4'), 'x');
    const file = await open(join(folder, 'rootfs.ext4'));
    const sweep = host.registry.recover();
    await sleep(200);
    await file.close();
    await sweep;
    expect(await host.leftovers()).toEqual([]);
  });
});
