// Keeps a VM's disk with the memory that belongs to it, verifies both, and starts a second VM from them:
// node examples/snapshot-and-verify.mjs TEMPLATE_DIR CLONES_DIR STACK
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RootfsRegistry } from '../dist/index.mjs';

const [templateDir, clonesDir, stack] = process.argv.slice(2);
if (stack === undefined) {
  console.error('usage: node examples/snapshot-and-verify.mjs TEMPLATE_DIR CLONES_DIR STACK');
  process.exit(2);
}

// Names of their own, so that nobody's VM or snapshot is touched.
const [vm, copy, name] = ['vm', 'copy', 'snapshot'].map((what) => `example-${what}-${process.pid}`);
const registry = new RootfsRegistry({ templateDir, clonesDir });
const vmmFolder = await mkdtemp(join(tmpdir(), 'vmm-'));
try {
  await registry.cloneForVm(vm, stack, { writable: true });

  // Here the VM would be paused, and the VMM told to write its memory: with Firecracker, PATCH /vm and PUT
  // /snapshot/create.
  const memory = join(vmmFolder, 'memory');
  await writeFile(memory, 'the memory of a paused VM');

  const taken = await registry.snapshotSlot(vm, name, { with: [memory] });
  for (const { name, sizeBytes, sha256 } of taken.files)
    console.log(`${sha256}  ${name} (${sizeBytes} bytes)`);

  // Days later: is it still what it was?
  await registry.verifySnapshot(name);
  console.log('verified');

  // Verifies once more, and gives the files for the VMM to load beside the disk.
  const { path, strategy, files } = await registry.restoreSnapshot(name, copy);
  console.log(`restored to ${path} by ${strategy}, with ${files.length} file beside it`);
} catch (error) {
  // SNAPSHOT_CORRUPT names the file that is not as it was.
  console.error(`${error.code ?? 'error'}: ${error.message}`);
  process.exitCode = 1;
} finally {
  await registry.removeSnapshot(name);
  for (const vmId of [vm, copy]) await registry.release(vmId);
  await registry.close();
  await rm(vmmFolder, { recursive: true, force: true });
}
