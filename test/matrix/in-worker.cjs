// program.cjs in a worker thread, after another worker was terminated in the middle of its work.
const { writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { Worker } = require('node:worker_threads');

const folders = process.argv.slice(2);

const HASHES_FOR_EVER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { hashFile } = require('microvm-rootfs');
  const again = () => { parentPort.postMessage('hashing'); return hashFile(workerData).then(again); };
  again();
`;

const big = join(folders[0], 'big');
writeFileSync(big, Buffer.alloc(8 << 20));
const first = new Worker(HASHES_FOR_EVER, { eval: true, workerData: big });
first.once('message', async () => {
  await first.terminate();
  const second = new Worker(join(__dirname, 'program.cjs'), { argv: folders });
  second.on('error', (error) => {
    console.error(error);
    process.exitCode = 1;
  });
  second.on('exit', (code) => {
    process.exitCode ||= code;
  });
});
