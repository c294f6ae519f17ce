// What a scheduler does with its disks: node examples/scheduler.mjs TEMPLATE_DIR CLONES_DIR STACK
import { RootfsError, RootfsRegistry } from '../dist/index.mjs';

const [templateDir, clonesDir, stack] = process.argv.slice(2);
if (stack === undefined) {
  console.error('usage: node examples/scheduler.mjs TEMPLATE_DIR CLONES_DIR STACK');
  process.exit(2);
}

const registry = new RootfsRegistry({ templateDir, clonesDir });

// After a crash of the last run; harmless otherwise.
const { tornSlots } = await registry.recover();
for (const slot of tornSlots) console.log(`removed ${slot}, which was not whole`);

// Hashing and sealing now, not when the first VM waits for it.
await registry.prewarm(stack, { count: 4 });

async function start(vmId) {
  try {
    const disk = await registry.cloneForVm(vmId, stack, { writable: true });
    console.log(
      `${vmId}: ${disk.path}${disk.pooled ? ', from the pool' : ''}${disk.reused ? ', as before' : ''}`,
    );
    // Here the VMM would be started on disk.path.
  } catch (error) {
    if (!(error instanceof RootfsError)) throw error;
    // The template was replaced since this VM's disk was made: it goes on with what it has until it is released.
    if (error.code === 'STAMP_MISMATCH') console.log(`${vmId}: keeps its disk of the template before`);
    else console.error(`${vmId}: ${error.code}: ${error.message}`);
  }
}

await Promise.all(['vm-1', 'vm-2', 'vm-3'].map(start));
await start('vm-1');
for (const vmId of ['vm-1', 'vm-2', 'vm-3']) await registry.release(vmId);
await registry.close();
