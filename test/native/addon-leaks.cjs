// Everything that the addon does once or more, well and badly, and then the end of the process: run by
// scripts/addon-sanitized.sh with LeakSanitizer, which then looks for memory that nothing points to.
const { mkdirSync, rmSync, truncateSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { Worker, isMainThread, workerData } = require('node:worker_threads');
const { RootfsRegistry, hashFile } = require('../../dist/index.js');

async function refused(call) {
  try {
    await call();
  } catch (error) {
    if (error.code !== undefined) return;
    throw error;
  }
  throw new Error('this was to be refused');
}

async function use(folder) {
  const templateDir = join(folder, 'templates');
  mkdirSync(join(templateDir, 'debian'), { recursive: true });
  const template = join(templateDir, 'debian/rootfs.ext4');
  writeFileSync(template, Buffer.alloc(3 << 20, 'x'));
  truncateSync(template, 8 << 20);
  const registry = new RootfsRegistry({ templateDir, clonesDir: join(folder, 'clones') });
  for (let round = 0; round < 20; round++) {
    await registry.cloneForVm(`vm/${round}`, 'debian', { writable: true, durable: round % 2 === 0 });
    await registry.cloneForVm(`vm/${round}`, 'debian', { writable: true });
    await refused(() => registry.cloneForVm(`vm.${round}`, 'debian'));
    await refused(() => registry.cloneForVm('vm', 'absent'));
  }
  await registry.cloneMany(
    Array.from({ length: 100 }, (_, i) => ({
      vmId: `many-${i}`,
      stack: 'debian',
      options: { writable: true },
    })),
  );
  await registry.cloneForVm('linked', 'debian', { writable: false });
  await registry.cloneForVm('linked', 'debian', { writable: true });
  await registry.stacks();
  await hashFile(template);
  await refused(() => hashFile(join(folder, 'absent')));
  for (let i = 0; i < 100; i++) await registry.release(`many-${i}`);
  await registry.recover();
  await registry.close();
}

async function main() {
  const folder = workerData ?? process.argv[2];
  await use(join(folder, isMainThread ? 'main' : 'worker'));
  // Node 20 itself never frees its 40 bytes of a handle that was not collected before its thread ends
  // (napi_create_external).
  for (let i = 0; i < 5; i++) {
    await new Promise(setImmediate);
    global.gc();
  }
  if (!isMainThread) return;
  await new Promise((resolve, reject) => {
    new Worker(__filename, { workerData: folder }).on('error', reject).on('exit', resolve);
  });
  rmSync(join(folder, 'main'), { recursive: true });
  console.log('done');
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
