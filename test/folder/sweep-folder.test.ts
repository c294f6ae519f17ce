// What cannot be removed, and what is removed while somebody has it open: FUSE keeps such a file under another name,
// and its folder with it.
import { mkdir, open, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;

test('what cannot be removed keeps nothing else from being removed, and is told at the end', async ({
  skip,
}) => {
  const ext4 = filesystemNamed('ext4');
  const reason = ext4.missing ?? lacksRoot() ?? lacks('chattr');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(ext4.path);
  await host.addTemplate('debian', 'debian');
  const trash = join(host.clonesDir, '.microvm-rootfs', 'trash');
  // Several times what one slice of a sweep removes.
  for (let i = 0; i < 300; i++) {
    await mkdir(join(trash, `slot-${i}`), { recursive: true });
    await writeFile(join(trash, `slot-${i}`, 'rootfs.ext4'), 'x');
  }
  const stays = (await readdir(trash))[0] as string;
  const image = join(trash, stays, 'rootfs.ext4');
  await run('chattr', ['+i', image]);
  const warnings: string[] = [];
  const listener = ({ message }: Error) => void warnings.push(message);
  process.on('warning', listener);
  try {
    // Opening the folder sweeps it in the background.
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await host.registry.drain();
    await sleep(0);
    expect(await readdir(trash)).toEqual([stays]);
    expect(warnings.filter((text) => text.includes(image))).toHaveLength(1);

    for (let i = 0; i < 100; i++) await mkdir(join(trash, `another-${i}`));
    const error = await rejection(host.registry.recover(), 'EPERM');
    expect(error.path).toBe(image);
    // The others, and not the one that stays.
    expect(error.report).toMatchObject({ trashRemoved: 100 });
    expect(await readdir(trash)).toEqual([stays]);
  } finally {
    process.off('warning', listener);
    await run('chattr', ['-i', image]);
  }
  await host.registry.recover();
  expect(await readdir(trash)).toEqual([]);
});

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
