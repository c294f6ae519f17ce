// Kernels that this machine does not have: one that does not tell what is mounted where.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

function preloaded(host: Host): string {
  const library = join(host.root, 'other_kernel.so');
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, 'test/traps/other_kernel.c', '-ldl']);
  return library;
}

async function hostOn(name: string, skip: (reason: string) => void): Promise<Host> {
  const reason = filesystemNamed(name).missing ?? lacksRoot() ?? lacks('g++');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed(name).path);
  await host.addTemplate('debian', pattern(MiB));
  return host;
}

test.for([{ kernel: 'this' }, { kernel: 'an old', env: { OLD_STATX: '1' } }])(
  'what is mounted in a slot is not emptied with it: $kernel kernel',
  async ({ env = {} }, { skip }) => {
    const host = await hostOn('XFS', skip);
    await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    await host.registry.close();
    const mounted = join(host.slot('vm-1').path, 'inner/mounted');
    await mkdir(mounted, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', mounted]);
    const trash = join(host.clonesDir, '.microvm-rootfs/trash');
    const mountedIn = async () => {
      const [name = ''] = await readdir(trash);
      return join(trash, name, 'inner/mounted');
    };
    onTestFinished(async () => {
      execFileSync('umount', [await mountedIn()]);
    });
    await writeFile(join(mounted, 'data'), 'precious');
    const { stdout, stderr } = await runChild(
      `const registry = new lib.RootfsRegistry(args);
       process.on('warning', ({ code }) => console.log(code));
       console.log(await registry.release('vm-1'));
       await registry.drain();
       await registry.recover().catch(({ code }) => console.log(code));
       await registry.close();`,
      { templateDir: host.templateDir, clonesDir: host.clonesDir },
      { env: { LD_PRELOAD: preloaded(host), NODE_NO_WARNINGS: '1', ...env } },
    );
    expect([stdout.split('\n'), stderr]).toEqual([
      expect.arrayContaining(['true', 'MICROVM_ROOTFS_SWEEP', 'EBUSY']),
      '',
    ]);
    expect(await readFile(join(await mountedIn(), 'data'), 'utf8')).toBe('precious');
  },
);
