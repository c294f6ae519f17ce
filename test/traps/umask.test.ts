// A umask of 0777 shuts whoever makes a file or a folder out of it. Root does not notice.
import { execFileSync } from 'node:child_process';
import { chmod, chown, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, inject, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { Host } from '../fixtures/host.js';
import { MiB, makeExt4Image, pattern } from '../fixtures/images.js';
import { pushLayers } from '../fixtures/oci-push.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const NOBODY = 65534;
const missing = lacksRoot() ?? lacks('docker-registry', 'zstd', 'mke2fs', 'resize2fs', 'qemu-img', 'tar');

test('a user without privileges publishes, clones, pushes and pulls', { timeout: 120_000 }, async ({
  skip,
}) => {
  if (missing !== undefined) skip(missing);
  const { host: registry } = await startOciRegistry();
  const { root } = await Host.in(inject('scratch'));
  await chmod(root, 0o755);
  const [tree, disk, own] = [join(root, 'tree'), join(root, 'disk.ext4'), join(root, 'own')];
  await mkdir(join(tree, 'etc'), { recursive: true });
  await writeFile(join(tree, 'etc/data'), pattern(MiB));
  execFileSync('tar', ['-czf', join(root, 'tree.tar.gz'), '-C', tree, '.']);
  await makeExt4Image(disk, 16 * MiB);
  execFileSync('qemu-img', ['convert', '-O', 'qcow2', disk, join(root, 'disk.qcow2')]);
  await pushLayers(registry, 'disk', '1', [{ content: gzipSync(await readFile(disk)) }]);
  await mkdir(own);
  await chown(own, NOBODY, NOBODY);
  const { stdout, stderr } = await runChild(
    `process.umask(0o777);
     const { root, own, host } = args;
     const [one, two] = ['one', 'two'].map((name) => new lib.RootfsRegistry({
       templateDir: own + '/' + name,
       clonesDir: own + '/' + name + '-vms',
       registries: { [host]: { insecure: true } },
     }));
     const steps = [
       () => one.publishStack('folder', root + '/tree'),
       () => one.publishStack('tar', root + '/tree.tar.gz'),
       () => one.publishStack('raw', root + '/disk.ext4'),
       () => one.publishStack('qcow2', root + '/disk.qcow2'),
       () => one.cloneForVmWithSize('vm', 'folder', 256 << 20),
       () => one.commitSlot('vm', 'commit'),
       () => one.forkSlot('vm', 'vm-2'),
       () => one.exportTo('vm', own + '/export'),
       () => one.snapshotSlot('vm', 'paused'),
       () => one.restoreSnapshot('paused', 'vm-3'),
       () => one.pushStack('folder', host + '/folder:1'),
       () => two.pullStack(host + '/folder:1'),
       () => one.pushSnapshot('paused', host + '/paused:1'),
       () => two.pullSnapshot(host + '/paused:1'),
       () => two.pullStack(host + '/disk:1'),
       () => one.recover(),
       () => one.close(),
       () => two.close(),
     ];
     for (const step of steps) await step().catch(({ message }) => console.log(step + ': ' + message));`,
    { root, own, host: registry },
    { uid: NOBODY },
  );
  expect({ stdout, stderr }).toEqual({ stdout: '', stderr: '' });
});
