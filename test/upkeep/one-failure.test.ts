// One thing that cannot be read or removed keeps no upkeep from all else.
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import type { GcReport, RecoverReport } from '../../src/index.js';
import { cli } from '../cli/run-cli.js';
import { exitOf, printed, runChild, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;

async function hostWithSlots(folder: string): Promise<Host> {
  const host = await Host.in(folder);
  await host.addTemplate('debian', 'debian');
  for (const id of ['vm-1', 'vm-2', 'vm-3', 'vm-4']) await host.registry.cloneForVm(id, 'debian', WRITABLE);
  return host;
}

function makeImmutable(path: string): void {
  execFileSync('chattr', ['+i', path]);
  onTestFinished(() => {
    execFileSync('chattr', ['-i', path]);
  });
}

describeEachFilesystem(
  (filesystem) => {
    test('gc releases the others, and names the one that failed', async ({ skip }) => {
      const reason = lacksRoot() ?? lacks('chattr');
      if (reason !== undefined) skip(reason);
      const host = await hostWithSlots(filesystem.path);
      makeImmutable(host.slot('vm-2').path);
      const { message, report } = await rejection(host.registry.gc({ keep: ['vm-4'] }), 'EPERM');
      expect(message).toContain(host.slot('vm-2').path);
      const { released } = report as GcReport;
      expect([...released].sort()).toEqual(['vm-1', 'vm-3']);
      expect(await host.slotNames()).toEqual(['vm-2', 'vm-4']);
    });

    test('recover removes the other torn slots, and names the one that failed', async ({ skip }) => {
      const reason = lacksRoot() ?? lacks('chattr');
      if (reason !== undefined) skip(reason);
      const host = await hostWithSlots(filesystem.path);
      for (const id of ['vm-1', 'vm-2', 'vm-3']) await truncate(host.slot(id).stamp, 0);
      makeImmutable(host.slot('vm-2').path);
      const { message, report } = await rejection(host.registry.recover(), 'EPERM');
      expect(message).toContain(host.slot('vm-2').path);
      const { tornSlots } = report as RecoverReport;
      expect([...tornSlots].sort()).toEqual(['vm-1', 'vm-3']);
      expect(await host.slotNames()).toEqual(['vm-2', 'vm-4']);
    });

    test.for([
      ['verify', 'pread64'],
      ['usage', 'ioctl'],
    ])('%s looks at the others, and names the one that failed', async ([name, call], { skip }) => {
      const reason = lacksRoot() ?? lacks('strace');
      if (reason !== undefined) skip(reason);
      const host = await Host.in(filesystem.path);
      const stacks = ['alpine', 'debian', 'fedora'];
      for (const stack of stacks) {
        await host.addTemplate(stack, stack);
        await host.registry.cloneForVm(`vm-${stack}`, stack, WRITABLE);
      }
      const { templateDir, clonesDir } = host;
      const log = join(host.root, 'strace.log');
      const templates = stacks.flatMap((stack) => ['-P', host.template(stack)]);
      const exit = await runChild(
        `const registry = new lib.RootfsRegistry(args);
         console.log(await registry.${name}().then(() => 'no error', ({ code, message, report }) =>
           code + ' ' + message + JSON.stringify(report)));
         await registry.close();`,
        { templateDir, clonesDir },
        {
          under: [
            'strace',
            '-f',
            '-y',
            '-qqq',
            '-o',
            log,
            ...templates,
            '-e',
            `inject=${call}:error=EIO:when=1`,
          ],
          env: { UV_THREADPOOL_SIZE: '1' },
        },
      );
      expect(exit.stderr).toBe('');
      expect(exit.stdout).toMatch(/^EIO /);
      expect(exit.stdout).toContain(host.template('alpine'));
      expect(exit.stdout).toMatch(name === 'verify' ? /"templates":\d,.*"differences":\[\]/ : /"slots":3,/);
      const calls = (await readFile(log, 'utf8')).split('\n').filter((line) => line.includes(`${call}(`));
      for (const stack of stacks) expect(calls.join('\n')).toContain(host.template(stack));
    });

    test('the command prints what was done, then the error', async ({ skip }) => {
      const reason = lacksRoot() ?? lacks('chattr');
      if (reason !== undefined) skip(reason);
      const host = await hostWithSlots(filesystem.path);
      makeImmutable(host.slot('vm-2').path);
      const { code, stdout, stderr } = await cli(host, ['gc', '--keep', 'vm-4', '--yes', '--json']);
      expect(JSON.parse(stdout).released.sort()).toEqual(['vm-1', 'vm-3']);
      expect(JSON.parse(stderr).error).toMatchObject({ code: 'EPERM' });
      expect(code).not.toBe(0);
    });

    test('a strange entry among our own files hides nothing', async () => {
      const host = await hostWithSlots(filesystem.path);
      await host.registry.prewarm('debian', { count: 2 });
      await host.registry.snapshotSlot('vm-1', 'good');
      const state = join(host.clonesDir, '.microvm-rootfs');
      for (const place of ['sealed', 'pool']) await writeFile(join(state, place, 'a file'), 'x');
      await mkdir(join(state, 'snapshots', 'aaa', 'SHA256SUMS'), { recursive: true });
      expect(await host.registry.usage()).toMatchObject({ slots: 4 });
      expect(await host.registry.readySlots()).toMatchObject([{ count: 2 }]);
      const names: string[] = [];
      try {
        for await (const { name } of host.registry.snapshots()) names.push(name);
      } catch {
        // It tells of the folder in place of a manifest.
      }
      expect(names).toEqual(['good']);
    });

    test('close closes all else, and names what failed', async ({ skip }) => {
      const reason = lacksRoot() ?? lacks('chattr');
      if (reason !== undefined) skip(reason);
      const host = await hostWithSlots(filesystem.path);
      const { root, templateDir, clonesDir } = host;
      const child = startChild(
        `const { readdirSync, readlinkSync } = require('node:fs');
         const descriptors = () => readdirSync('/proc/self/fd').filter((fd) => {
           try { return readlinkSync('/proc/self/fd/' + fd).startsWith(args.root); } catch { return false; }
         }).length;
         const told = (call) => call.then(() => 'no error', ({ code, message }) => code + ' ' + message);
         const registry = new lib.RootfsRegistry({ templateDir: args.templateDir, clonesDir: args.clonesDir });
         await registry.snapshotSlot('vm-1', 'kept');
         await registry.cloneForVm('vm-5', 'debian', { writable: true });
         await registry.drain();
         console.log(descriptors() + " before");
         console.log("ready");
         await new Promise((go) => process.stdin.once('data', go));
         console.log(await told(registry.close()));
         console.log(descriptors() + ' open');
         console.log(await told(registry.cloneForVm('vm-6', 'debian')));
         process.exit();`,
        { root, templateDir, clonesDir },
      );
      const exit = exitOf(child);
      await printed(child, 'ready');
      makeImmutable(join(clonesDir, '.microvm-rootfs', 'staging'));
      child.stdin?.write('go');
      const [before, , closed, open, after] = (await exit).stdout.split('\n');
      expect(before).toMatch(/^[1-9]/);
      expect(closed).toMatch(/^EPERM closing /);
      expect(closed).toContain(clonesDir);
      expect(open).toBe('0 open');
      expect(after).toMatch(/^CLOSED /);
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);
