// Loading and leaving: threads, several copies, exits and terminations with work under way. Each in a child, whose
// death would be seen.
import { expect, test } from 'vitest';
import { runChild } from '../fixtures/child.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';

async function args(contents: Buffer | string = 'debian') {
  const host = await Host.in();
  await host.addTemplate('debian', contents);
  return { templateDir: host.templateDir, clonesDir: host.clonesDir };
}

const CLEAN = { code: 0, signal: null, stderr: '' };

test('in worker threads, all of which clone', async () => {
  const exit = await runChild(
    `const { Worker } = require('node:worker_threads');
     const source = \`
       const { workerData: { LIBRARY, args, i } } = require('node:worker_threads');
       const lib = require(LIBRARY);
       (async () => {
         const registry = new lib.RootfsRegistry(args);
         for (let k = 0; k < 10; k++) await registry.cloneForVm('vm-' + i + '-' + k, 'debian', { writable: true });
         await registry.close();
       })();
     \`;
     const exits = await Promise.all([0, 1, 2, 3].map((i) => new Promise((resolve) => {
       new Worker(source, { eval: true, workerData: { LIBRARY, args, i } }).on('exit', resolve);
     })));
     console.log(exits.join());
     const registry = new lib.RootfsRegistry(args);
     console.log((await registry.cloneForVm('vm-3-9', 'debian', { writable: true })).reused);
     await registry.close();`,
    await args(),
  );
  expect(exit).toMatchObject({ ...CLEAN, stdout: '0,0,0,0\ntrue\n' });
});

test('worker.terminate() with work under way', async () => {
  const exit = await runChild(
    `const { Worker } = require('node:worker_threads');
     const source = \`
       const { workerData: { LIBRARY, args }, parentPort } = require('node:worker_threads');
       const lib = require(LIBRARY);
       const registry = new lib.RootfsRegistry(args);
       for (let k = 0; k < 50; k++) registry.cloneForVm('vm-' + k, 'debian', { writable: true }).catch(() => {});
       lib.hashFile(args.templateDir + '/debian/rootfs.ext4').catch(() => {});
       parentPort.postMessage('busy');
     \`;
     for (const delayMs of [0, 1, 5, 20, 60]) {
       const worker = new Worker(source, { eval: true, workerData: { LIBRARY, args } });
       await new Promise((resolve) => worker.once('message', resolve));
       await new Promise((resolve) => setTimeout(resolve, delayMs));
       await worker.terminate();
     }
     console.log('alive');`,
    await args(pattern(8 * MiB)),
  );
  expect(exit).toMatchObject({ ...CLEAN, stdout: 'alive\n' });
});

test('worker.terminate() at any moment of calls that succeed and calls that fail', {
  timeout: 60_000,
}, async () => {
  const exit = await runChild(
    `const { Worker } = require('node:worker_threads');
     const source = \`
       const { workerData: { LIBRARY, args }, parentPort } = require('node:worker_threads');
       const lib = require(LIBRARY);
       const registry = new lib.RootfsRegistry(args);
       const ignore = () => {};
       registry.cloneForVm('vm', 'debian', { writable: true }).catch(ignore);
       const go = () => {
         for (let k = 0; k < 20; k++) {
           lib.hashFile('/nonexistent').catch(ignore);
           registry.slot('vm').catch(ignore);
           registry.slots().next().catch(ignore);
           try { registry.cloneForVmSync('vm', 'debian', { writable: true }); } catch {}
         }
         setImmediate(go);
       };
       go();
       parentPort.postMessage('busy');
     \`;
     for (let k = 0; k < 60; k++) {
       const worker = new Worker(source, { eval: true, workerData: { LIBRARY, args } });
       await new Promise((resolve) => worker.once('message', resolve));
       await new Promise((resolve) => setTimeout(resolve, Math.random() * 15));
       await worker.terminate();
     }
     console.log('alive');`,
    await args(pattern(MiB)),
  );
  expect(exit).toMatchObject({ ...CLEAN, stdout: 'alive\n' });
});

test.each(['process.exit(7)', 'process.exitCode = 7; setTimeout(() => process.exit(), 3)'])(
  '%s with work under way',
  async (leave) => {
    const exit = await runChild(
      `const registry = new lib.RootfsRegistry(args);
       await registry.stack('debian');
       for (let k = 0; k < 50; k++) registry.cloneForVm('vm-' + k, 'debian', { writable: true }).catch(() => {});
       lib.hashFile(args.templateDir + '/debian/rootfs.ext4').catch(() => {});
       setImmediate(() => { ${leave} });`,
      await args(pattern(8 * MiB)),
    );
    expect(exit).toMatchObject({ code: 7, signal: null, stderr: '' });
  },
);

test('a registry that was never closed does not keep the process alive', async () => {
  const exit = await runChild(
    `const registry = new lib.RootfsRegistry(args);
     await registry.cloneForVm('vm-1', 'debian', { writable: true });
     await registry.release('vm-1');`,
    await args(),
  );
  expect(exit).toMatchObject(CLEAN);
});

test('loaded twice', async () => {
  const exit = await runChild(
    `for (const path of Object.keys(require.cache)) delete require.cache[path];
     const again = require(LIBRARY);
     const registries = [new lib.RootfsRegistry(args), new again.RootfsRegistry(args)];
     const reused = [];
     for (const registry of registries) {
       reused.push((await registry.cloneForVm('vm-1', 'debian', { writable: true })).reused);
     }
     for (const registry of registries) await registry.close();
     console.log(lib.RootfsRegistry !== again.RootfsRegistry, reused.join());`,
    await args(),
  );
  expect(exit).toMatchObject({ ...CLEAN, stdout: 'true false,true\n' });
});

test('handles that nobody closes are collected', async () => {
  const exit = await runChild(
    `for (let i = 0; i < 200; i++) {
       const registry = new lib.RootfsRegistry({ ...args });
       await registry.cloneForVm('vm-' + i, 'debian', { writable: true });
       if (i % 20 === 0) { globalThis.gc(); await new Promise((resolve) => setTimeout(resolve, 1)); }
     }
     globalThis.gc();
     await new Promise((resolve) => setTimeout(resolve, 10));
     globalThis.gc();
     await new Promise((resolve) => setTimeout(resolve, 10));
     const open = require('node:fs').readdirSync('/proc/self/fd').length;
     console.log(open < 400 ? 'collected' : 'open: ' + open);`,
    await args(),
    { env: { NODE_OPTIONS: '--expose-gc' } },
  );
  expect(exit).toMatchObject({ ...CLEAN, stdout: 'collected\n' });
});
