// What a scheduler does with its disks: node examples/scheduler.mjs TEMPLATE_DIR CLONES_DIR STACK [SECONDS]
// Starts four "VMs", one of them with a larger disk, and takes their disks away when it ends, also by Ctrl-C.
import { setTimeout as sleep } from 'node:timers/promises';
import { RootfsError, RootfsRegistry } from '../dist/index.mjs';

const [templateDir, clonesDir, stack, seconds = '1'] = process.argv.slice(2);
if (stack === undefined) {
  console.error('usage: node examples/scheduler.mjs TEMPLATE_DIR CLONES_DIR STACK [SECONDS]');
  process.exit(2);
}

const registry = new RootfsRegistry({ templateDir, clonesDir });
const running = new Set();
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop.abort());

async function start(vmId, options = {}) {
  const disk = await diskFor(vmId, { writable: true, signal: stop.signal, ...options });
  running.add(vmId);
  const notes = [disk.strategy, disk.pooled && 'from the pool', disk.reused && 'as before'].filter(Boolean);
  console.log(`${vmId}: ${disk.path}, ${disk.sizeBytes} bytes, ${notes.join(', ')}`);
  // Here the VMM would be started on disk.path.
}

/**
 * The VM's disk. One that an earlier run left and that is of no use now is replaced, unless something still runs on it.
 */
async function diskFor(vmId, options) {
  try {
    return await registry.cloneForVm(vmId, stack, options);
  } catch (error) {
    const outdated = ['STAMP_MISMATCH', 'SIZE_STAMP_MISMATCH', 'SLOT_TORN'].includes(error.code);
    if (!outdated) throw error;
    await registry.release(vmId, { refuseInUse: true });
    return registry.cloneForVm(vmId, stack, options);
  }
}

function explain(error) {
  if (!(error instanceof RootfsError)) throw error;
  if (error.code === 'ABORT_ERR') return; // by Ctrl-C
  process.exitCode = 1;
  if (error.code === 'ENOSPC')
    console.error('No space for more disks: no VM is started until some are released.');
  else if (error.code === 'SLOT_IN_USE')
    console.error('A VM of an earlier run is still there: stop it first.');
  console.error(`${error.code}: ${error.message}`);
}

try {
  // After a crash of the last run; harmless otherwise.
  const { tornSlots } = await registry.recover({ signal: stop.signal });
  for (const slot of tornSlots) console.log(`removed ${slot}, which was not whole`);

  const template = await registry.stack(stack, { signal: stop.signal });
  // Hashes and seals now rather than when the first VM waits for it, and keeps two disks ready.
  await registry.prewarm(stack, { count: 2, signal: stop.signal });
  const starts = await Promise.allSettled([
    ...['vm-1', 'vm-2', 'vm-3'].map((vmId) => start(vmId)),
    start('vm-large', { sizeBytes: 2 * template.sizeBytes }),
  ]);
  for (const { reason } of starts) if (reason !== undefined) explain(reason);
  await sleep(1000 * Number(seconds), undefined, { signal: stop.signal }).catch(() => {});
} catch (error) {
  explain(error);
} finally {
  for (const vmId of running) await registry.release(vmId).catch(explain);
  await registry.close();
}
