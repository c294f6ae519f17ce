// Boots a Firecracker microVM from a clone: node examples/firecracker-boot.mjs TEMPLATE_DIR CLONES_DIR STACK KERNEL
// Without firecracker or /dev/kvm it says so, and shows the configuration that it would boot. The disk is taken away at
// the end.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RootfsRegistry, toFirecrackerDrive } from '../dist/index.mjs';

const [templateDir, clonesDir, stack, kernel] = process.argv.slice(2);
if (kernel === undefined) {
  console.error('usage: node examples/firecracker-boot.mjs TEMPLATE_DIR CLONES_DIR STACK KERNEL');
  process.exit(2);
}

/** What this host lacks. */
function missing() {
  const can = (path, mode) => spawnSync('test', [mode, path]).status === 0;
  return [
    spawnSync('firecracker', ['--version']).error && 'firecracker on PATH',
    !can('/dev/kvm', '-w') && '/dev/kvm',
    !can(kernel, '-r') && `the kernel ${kernel}`,
  ].filter(Boolean);
}

const registry = new RootfsRegistry({ templateDir, clonesDir });
const vmId = `example-${process.pid}`;
const folder = await mkdtemp(join(tmpdir(), 'firecracker-'));
try {
  const disk = await registry.cloneForVm(vmId, stack, { writable: true });
  const config = {
    'boot-source': { kernel_image_path: kernel, boot_args: 'console=ttyS0 reboot=k panic=1 pci=off' },
    drives: [toFirecrackerDrive(disk)],
    'machine-config': { vcpu_count: 1, mem_size_mib: 128 },
  };
  const lacks = missing();
  if (lacks.length > 0) {
    console.log(`The disk is ready, but not booted, for want of ${lacks.join(', ')}. This is what would be:`);
    console.log(JSON.stringify(config, undefined, 2));
  } else {
    // The same objects are the bodies of PUT /boot-source, /drives/rootfs and /machine-config on Firecracker's socket.
    const file = join(folder, 'vm.json');
    await writeFile(file, JSON.stringify(config));
    const firecracker = spawn('firecracker', ['--no-api', '--config-file', file], { stdio: 'inherit' });
    process.exitCode = await new Promise((resolve, reject) => {
      firecracker.on('error', reject).on('exit', (status) => resolve(status ?? 1));
    });
  }
} catch (error) {
  console.error(`${error.code ?? 'error'}: ${error.message}`);
  process.exitCode = 1;
} finally {
  await registry.release(vmId);
  await registry.close();
  await rm(folder, { recursive: true, force: true });
}
