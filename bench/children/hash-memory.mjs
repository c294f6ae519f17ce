// Prints how many bytes of resident memory this process holds at most while it hashes a file, beyond what it held
// before. hash-memory.mjs LIBRARY library|stream FILE
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';

const [libraryFolder, way, file = ''] = process.argv.slice(2);
const { hashFile } = await import(`${libraryFolder}/dist/index.mjs`);
// What the first use loads is no matter of the file's size.
await hashFile('/etc/passwd');
await pipeline(createReadStream('/etc/passwd'), createHash('sha256'));

writeFileSync('/proc/self/clear_refs', '5'); // the peak begins anew: proc_pid_clear_refs(5)
const before = process.memoryUsage.rss();
if (way === 'library') await hashFile(file);
else await pipeline(createReadStream(file), createHash('sha256'));
const peakKiB = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
console.log(peakKiB * 1024 - before);
