// A warm pool in a worker thread, which the scheduler's own thread asks for disks: node examples/warm-pool-worker.mjs
// TEMPLATE_DIR CLONES_DIR STACK
import { on, once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { RootfsRegistry } from '../dist/index.mjs';

const VMS = 8;

if (isMainThread) await schedule();
else await serve();

/** In the worker: hashing, sealing and filling the pool keep nobody waiting. */
async function serve() {
  const { templateDir, clonesDir, stack } = workerData;
  const registry = new RootfsRegistry({ templateDir, clonesDir });
  await registry.prewarm(stack, { count: VMS });
  parentPort.postMessage('warm');
  for await (const [ids] of on(parentPort, 'message')) {
    if (ids === 'stop') break;
    const requests = ids.map((vmId) => ({ vmId, stack, options: { writable: true } }));
    const disks = await registry.cloneMany(requests);
    // An error loses its code on the way to another thread, so it goes as plain fields.
    parentPort.postMessage(
      disks.map(({ value, reason }) => value ?? { code: reason.code, message: reason.message }),
    );
  }
  for (const vmId of Array.from({ length: VMS }, (_, i) => idOf(i))) await registry.release(vmId);
  await registry.prewarm(stack, { count: 0 }); // the pool is given up
  await registry.close();
}

async function schedule() {
  const [templateDir, clonesDir, stack] = process.argv.slice(2);
  if (stack === undefined) {
    console.error('usage: node examples/warm-pool-worker.mjs TEMPLATE_DIR CLONES_DIR STACK');
    process.exit(2);
  }
  const worker = new Worker(new URL(import.meta.url), { workerData: { templateDir, clonesDir, stack } });
  try {
    await once(worker, 'message'); // rejects if the worker fails
    worker.postMessage(Array.from({ length: VMS }, (_, i) => idOf(i)));
    const [disks] = await once(worker, 'message');
    console.log(
      `${disks.length} disks, ${disks.filter(({ pooled }) => pooled).length} of them from the pool`,
    );
    worker.postMessage('stop');
    await once(worker, 'exit');
  } catch (error) {
    console.error(`${error.code ?? 'error'}: ${error.message}`);
    process.exitCode = 1;
  }
}

function idOf(i) {
  return `example-${process.pid}-${i}`;
}
