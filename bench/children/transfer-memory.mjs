// Prints how many bytes of resident memory this process holds at most while it pulls or pushes a stack, beyond what it
// held before. transfer-memory.mjs LIBRARY pull|push REGISTRY FOLDER STACK-OR-REFERENCE [TARGET]
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [libraryFolder, way, host = '', folder = '', what = '', target] = process.argv.slice(2);
const { RootfsRegistry } = await import(`${libraryFolder}/dist/index.mjs`);
const registry = new RootfsRegistry({
  templateDir: join(folder, 'templates'),
  clonesDir: join(folder, 'vms'),
  registries: { [host]: { insecure: true } },
});

writeFileSync('/proc/self/clear_refs', '5'); // the peak begins anew: proc_pid_clear_refs(5)
const before = process.memoryUsage.rss();
if (way === 'pull') await registry.pullStack(what);
else await registry.pushStack(what, target);
const peakKiB = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
await registry.close();
console.log(peakKiB * 1024 - before);
