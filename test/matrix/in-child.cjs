// program.cjs in a child process that shares its parent's descriptors, while the parent has the addon loaded too.
const { fork } = require('node:child_process');
const { join } = require('node:path');
const { hashFile } = require('microvm-rootfs');

hashFile(__filename).then(() => {
  fork(join(__dirname, 'program.cjs'), process.argv.slice(2)).on('exit', (code, signal) => {
    if (signal !== null) console.error(`the child died of ${signal}`);
    process.exitCode = code ?? 1;
  });
});
