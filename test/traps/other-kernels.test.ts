// Kernels that this machine does not have: one that does not tell what is mounted where, one whose FICLONE fails for a
// while, and file systems that keep attributes to themselves.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { preloadedKernel } from '../fixtures/other-kernel.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const { EAGAIN, EINVAL, EIO, ENOMEM, ENOSPC, EOPNOTSUPP, EOVERFLOW, EPERM } = constants.errno;

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
      { env: { LD_PRELOAD: preloadedKernel(host), NODE_NO_WARNINGS: '1', ...env } },
    );
    expect([stdout.split('\n'), stderr]).toEqual([
      expect.arrayContaining(['true', 'MICROVM_ROOTFS_SWEEP', 'EBUSY']),
      '',
    ]);
    expect(await readFile(join(await mountedIn(), 'data'), 'utf8')).toBe('precious');
  },
);

test.for([
  { name: 'EIO', errno: EIO, failures: 1, outcome: ['EIO', 'reflink []'], sealed: 1 },
  { name: 'ENOMEM', errno: ENOMEM, failures: 1, outcome: ['ENOMEM', 'reflink []'], sealed: 1 },
  { name: 'ENOSPC', errno: ENOSPC, failures: 1, outcome: ['reflink []', 'reflink []'], sealed: 1 },
  {
    name: 'ENOSPC for longer',
    errno: ENOSPC,
    failures: 3,
    outcome: ['reflink ["seal"]', 'reflink []'],
    sealed: 1,
  },
  {
    name: 'not written yet on ZFS',
    errno: EAGAIN,
    failures: 2,
    outcome: ['reflink []', 'reflink []'],
    sealed: 1,
  },
  {
    name: 'a part not written yet on ZFS',
    errno: EINVAL,
    failures: 4, // FICLONE and FICLONERANGE
    env: { ZFS: '1' },
    outcome: ['reflink []', 'reflink []'],
    sealed: 1,
  },
  {
    name: 'never written on ZFS',
    errno: EAGAIN,
    failures: 99,
    outcome: ['copy ["seal","reflink"]', 'copy ["seal","reflink"]'],
    sealed: 0,
  },
  {
    name: 'no reflink at all',
    errno: EOPNOTSUPP,
    failures: 99,
    outcome: ['copy ["reflink"]', 'copy ["reflink"]'],
    sealed: 0,
  },
])(
  'a FICLONE that fails when the folder is opened is no proof that there is none: $name',
  async ({ errno, failures, env = {}, outcome, sealed }, { skip }) => {
    const host = await hostOn('XFS', skip);
    const { stdout, stderr } = await runChild(
      `const registry = new lib.RootfsRegistry(args);
       for (const id of ['vm-1', 'vm-2'])
         await registry.cloneForVm(id, 'debian', { writable: true }).then(
           ({ strategy, attempts }) => console.log(strategy, JSON.stringify(attempts.map(({ strategy }) => strategy))),
           (error) => console.log(error instanceof lib.RootfsError ? error.code : error.stack));
       await registry.close();`,
      { templateDir: host.templateDir, clonesDir: host.clonesDir },
      {
        env: {
          LD_PRELOAD: preloadedKernel(host),
          FICLONE_ERRNO: `${errno}`,
          FICLONE_FAILURES: `${failures}`,
          ...env,
        },
      },
    );
    expect([stdout.trim().split('\n'), stderr]).toEqual([outcome, '']);
    expect(await readdir(join(host.clonesDir, '.microvm-rootfs/sealed'))).toHaveLength(sealed);
    for (const name of await host.slotNames())
      expect(await sha256Of(host.slot(name).image)).toBe(await sha256Of(host.template('debian')));
    expect(await host.leftovers()).toEqual([]);
  },
);

test.for<[attribute: string, errno: number, outcome: RegExp]>([
  ['trusted.lov', EOPNOTSUPP, /^published$/],
  ['user.x', EPERM, /^EPERM the attribute user\.x of .*tree\/file is listed/],
  ['user.x', EINVAL, /^EINVAL the attribute user\.x of .*tree\/file is listed/],
  ['user.x', EOVERFLOW, /^EOVERFLOW the attribute user\.x of .*tree\/file is listed/],
])('an attribute %s that is listed and not given with %i', async ([ATTRIBUTE, errno, outcome], { skip }) => {
  const missing = lacksRoot() ?? lacks('setfattr', 'mke2fs', 'g++');
  if (missing !== undefined) skip(missing);
  const host = await Host.in();
  const tree = join(host.root, 'tree');
  await mkdir(tree);
  await writeFile(join(tree, 'file'), '');
  execFileSync('setfattr', ['-n', ATTRIBUTE, '-v', 'x', join(tree, 'file')]);
  const { stdout } = await runChild(
    `const registry = new lib.RootfsRegistry(args.config);
     await registry.publishStack('tree', args.tree).then(
       () => console.log('published'),
       ({ code, message }) => console.log(code, message),
     );
     await registry.close();`,
    { config: { templateDir: host.templateDir, clonesDir: host.clonesDir }, tree },
    { env: { LD_PRELOAD: preloadedKernel(host), ATTRIBUTE, ATTRIBUTE_ERRNO: `${errno}` } },
  );
  expect(stdout.trim()).toMatch(outcome);
});
