// A durable call whose last flush fails: what has appeared may have been handed to another process by then, so it
// stays.
import { spawn } from 'node:child_process';
import { open, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { exitOf, printed, runChild, startChild } from '../fixtures/child.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const DURABLE = { writable: true, durable: true } as const;

// In the order of a clone: image, stamp and folder in staging, then the clones folder. A release has only the last.
test.for([
  ['cloneForVm', 4, 'r.cloneForVm("vm-1", "debian", { writable: true, durable: true })'],
  [
    'cloneForVmSync',
    4,
    'r.prewarm("debian").then(() => r.cloneForVmSync("vm-1", "debian", { writable: true, durable: true }))',
  ],
  ['forkSlot', 4, 'r.forkSlot("warm", "vm-1", { durable: true })'],
  ['release', 1, 'r.release("vm-1", { durable: true })'],
] as const)('%s', async ([name, when, call], { skip }) => {
  const reason = lacksRoot() ?? lacks('strace') ?? filesystemNamed('XFS').missing;
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addTemplate('debian', 'debian');
  if (name === 'release') await host.registry.cloneForVm('vm-1', 'debian', DURABLE);
  const { templateDir, clonesDir } = host;
  const child = startChild(
    `const r = new lib.RootfsRegistry({ templateDir: args.templateDir, clonesDir: args.clonesDir });
     await r.cloneForVm('warm', 'debian', { writable: true });
     console.log('ready');
     await new Promise((go) => process.stdin.once('data', go));
     console.log(await ${call}.then(() => 'no error', (error) => error.code + ' ' + error.message));
     process.exit();`,
    { templateDir, clonesDir },
    { env: { UV_THREADPOOL_SIZE: '1' } },
  );
  const exit = exitOf(child);
  await printed(child, 'ready');
  const injection = `inject=fsync:error=EIO:delay_enter=300000:when=${when}`;
  const tracer = spawn('strace', [
    '-f',
    '-p',
    `${child.pid}`,
    '-e',
    'trace=fsync',
    '-e',
    injection,
    '-o',
    '/dev/null',
  ]);
  onTestFinished(() => {
    tracer.kill('SIGKILL');
  });
  await new Promise((attached) => tracer.stderr.once('data', attached));
  child.stdin?.write('go');
  const { image } = host.slot('vm-1');
  if (name === 'release') {
    expect((await exit).stdout).toMatch(/EIO .*done, but not flushed/);
    expect(await exists(host.slot('vm-1').path)).toBe(false);
    expect(await host.registry.release('vm-1', { durable: true })).toBe(false);
    return;
  }
  while (!(await exists(image))) await sleep(5);
  const { reused } = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  expect(reused).toBe(true);
  const vm = await open(image, 'r+');
  const { stdout } = await exit;
  expect(stdout).toMatch(/EIO .*done, but not flushed/);
  if (name === 'cloneForVmSync') expect(stdout).toContain('cloneForVm flushes it again');
  expect(await exists(image)).toBe(true);
  await vm.close();
  // The same call again flushes, or the one that the message names.
  if (name !== 'forkSlot')
    expect((await host.registry.cloneForVm('vm-1', 'debian', DURABLE)).reused).toBe(true);
});

// A's owner or flush fails while B, which found A's link, has been told that the file is there.
test.for([
  [
    'chown',
    'fchown',
    { owner: { uid: 4711, gid: 4712 } },
    /the file was created, but setting its owner or mode failed/,
  ],
  ['flush', 'fsync', { durable: true }, /done, but not flushed/],
] as const)('exportTo, whose %s fails', async ([, call, options, message], { skip }) => {
  const reason = lacksRoot() ?? lacks('strace') ?? filesystemNamed('XFS').missing;
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  const path = join(host.root, 'disk');
  const { templateDir, clonesDir } = host;
  // Of a durable export the mark and its folder are flushed first.
  const when = call === 'fsync' ? 3 : 1;
  const exit = await runChild(
    `const r = new lib.RootfsRegistry({ templateDir: args.templateDir, clonesDir: args.clonesDir });
     console.log(await r.exportTo('vm-1', args.path, args.options).then(() => 'no error', (error) => error.message));
     process.exit();`,
    { templateDir, clonesDir, path, options },
    {
      under: [
        'strace',
        '-f',
        '-o',
        '/dev/null',
        '-e',
        `trace=${call}`,
        '-e',
        `inject=${call}:error=EIO:when=${when}`,
      ],
      env: { UV_THREADPOOL_SIZE: '1' },
    },
  );
  expect(exit.stdout).toMatch(message);
  expect((await stat(path)).ino).toBe((await stat(host.slot('vm-1').image)).ino);
  expect(await host.registry.exportTo('vm-1', path, options)).toMatchObject({ strategy: 'hardlink' });
  if ('owner' in options) expect(await stat(path)).toMatchObject(options.owner);
});

test('exportTo by copy, whose folder’s flush fails: the file stays, as a VMM may have it', async ({
  skip,
}) => {
  const reason = lacksRoot() ?? lacks('strace') ?? filesystemNamed('tmpfs').missing;
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  const { root } = await Host.in(filesystemNamed('tmpfs').path);
  const { templateDir, clonesDir } = host;
  const path = join(root, 'disk');
  const exit = await runChild(
    `const r = new lib.RootfsRegistry({ templateDir: args.templateDir, clonesDir: args.clonesDir });
     const call = r.exportTo('vm-1', args.path, { durable: true });
     console.log(await call.then(() => 'no error', (error) => error.message));`,
    { templateDir, clonesDir, path },
    { under: ['strace', '-f', '-o', '/dev/null', '-P', root, '-e', 'inject=fsync:error=EIO'] },
  );
  expect(exit.stdout).toMatch(/done, but not flushed.*rejects with FILE_EXISTS/);
  expect(await readFile(path, 'utf8')).toBe('debian');
  await rejection(host.registry.exportTo('vm-1', path, { durable: true }), 'FILE_EXISTS');
});

test('a snapshot whose flush fails says what could not be flushed', async ({ skip }) => {
  const reason = lacksRoot() ?? lacks('strace') ?? filesystemNamed('XFS').missing;
  if (reason !== undefined) skip(reason);
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addTemplate('debian', 'debian');
  await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
  const { templateDir, clonesDir } = host;
  // The disk, the manifest, the folder in staging, and the folder of all snapshots.
  for (const when of [1, 2, 3, 4]) {
    const exit = await runChild(
      `const r = new lib.RootfsRegistry({ templateDir: args.templateDir, clonesDir: args.clonesDir });
       console.log(await r.snapshotSlot('vm-1', 'snap').then(() => 'no error', (error) => error.message));`,
      { templateDir, clonesDir },
      {
        under: ['strace', '-f', '-o', '/dev/null', '-e', `inject=fsync:error=EIO:when=${when}`],
        env: { UV_THREADPOOL_SIZE: '1' },
      },
    );
    expect(exit.stdout).toMatch(/fsync \/\S+ failed with EIO/);
  }
});
