// Publishing that is cut off, or that several do at once: the catalog has the old stack or the new one, and nothing
// half-made.
import { execFile } from 'node:child_process';
import { mkdir, readdir, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { runChild, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, MiB, makeExt4Image, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const execute = promisify(execFile);

// Publishes in a process of its own; prints what became of it.
const PUBLISH = `
  const registry = new lib.RootfsRegistry(args.config);
  await registry.publishStack('debian', args.source, { replace: args.replace })
    .then(({ sha256 }) => console.log('published', sha256), ({ code }) => console.log(code));
  await registry.close();`;

/** Old and new image, and every form of the new one that takes another way through staging. */
async function rig(folder?: string) {
  const host = await Host.in(folder);
  const at = (name: string) => join(host.root, name);
  await makeExt4Image(at('old'), 2 * MiB);
  await mkdir(at('tree'));
  await writeFile(at('tree/file'), pattern(MiB));
  await execute('tar', ['-C', at('tree'), '-cf', at('tar'), '.']);
  await makeExt4Image(at('raw'), 4 * MiB);
  await execute('bash', ['-c', 'gzip -k "$1/raw"; xz -k "$1/raw"; zstd -q "$1/raw"', 'bash', host.root]);
  await execute('qemu-img', ['convert', '-O', 'qcow2', at('raw'), at('qcow2')]);
  return { host, at, old: await sha256Of(at('old')) };
}

const SOURCES = ['tree', 'tar', 'raw', 'raw.gz', 'raw.xz', 'raw.zst', 'qcow2'] as const;
const missing = lacks('strace', 'qemu-img', 'xz', 'zstd', 'setfattr') ?? lacksRoot();

// System calls of the process itself, and which of them, counted in each thread. Together they are in every part of the
// work.
const POINTS = [
  ...[1, 6, 8, 9].map((when) => ({ call: 'mkdir', when })),
  ...[40, 60, 80].map((when) => ({ call: 'openat', when })),
  ...[1, 2, 3, 4].map((when) => ({ call: 'fsync', when })),
  ...[1, 2].map((when) => ({ call: 'rename', when })),
  { call: 'rmdir', when: 1 },
  { call: 'unlink', when: 1 },
  { call: 'chmod', when: 1 },
];

describeEachFilesystem(
  (filesystem) => {
    test('killed anywhere: the stack is the old one or the new one, and the next call goes through', {
      timeout: 180_000,
    }, async ({ skip }) => {
      if (missing !== undefined) skip(missing);
      const site = await rig(filesystem.path);
      const { host, old } = site;
      await host.registry.publishStack('debian', site.at('old'));
      let killed = 0;
      for (const [i, { call, when }] of POINTS.entries()) {
        const source = site.at(SOURCES[i % SOURCES.length] as string);
        const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=SIGKILL:when=${when}`];
        const { signal, stdout } = await runChild(
          PUBLISH,
          { config: host.registry.config, source, replace: true },
          { under: ['strace', '-f', '-qqq', '-o', '/dev/null', ...inject], env: { UV_THREADPOOL_SIZE: '1' } },
        );
        if (signal === 'SIGKILL') killed++;
        else expect(stdout).toMatch(/^published|_FAILED|IMAGE_INVALID/);
        await expectWhole(site);
        await expectSwept(site);
      }
      expect(killed).toBeGreaterThan(POINTS.length / 2);
      expect(await sha256Of(host.template('debian'))).toBe(old);
    });

    test.for([
      { program: 'mke2fs', bin: 'mke2fsBin' },
      { program: 'e2fsck', bin: 'e2fsckBin' },
    ])('killed while $program runs, which outlives it', async ({ program, bin }, { skip }) => {
      if (missing !== undefined) skip(missing);
      const site = await rig(filesystem.path);
      await site.host.registry.publishStack('debian', site.at('old'));
      const path = site.at(program);
      const body = `#!/bin/sh\nkill -9 $PPID\n/usr/sbin/${program} "$@"\necho done > ${path}.done\n`;
      await writeFile(path, body, { mode: 0o755 });
      const config = { ...site.host.registry.config, [bin]: path };
      const { signal } = await runChild(PUBLISH, { config, source: site.at('tree'), replace: true });
      expect(signal).toBe('SIGKILL');
      // Beside the program that still runs, or after it.
      await expectWhole(site);
      while (!(await exists(`${path}.done`))) await new Promise((resolve) => setImmediate(resolve));
      await expectSwept(site);
    });
  },
  ({ name }) => ['XFS', 'ext4', 'tmpfs'].includes(name),
);

type Site = Awaited<ReturnType<typeof rig>>;

/** The old image, or a clean other one. */
async function expectWhole({ host, old }: Site): Promise<void> {
  const found = await sha256Of(host.template('debian'));
  if (found !== old) expect(await faultsOf(host.template('debian'))).toBe('');
}

/** The next call sweeps what the dead one left, and that is not in its way. */
async function expectSwept({ host, at, old }: Site): Promise<void> {
  const next = host.anotherRegistry();
  expect((await next.publishStack('debian', at('old'), { replace: true })).sha256).toBe(old);
  await next.drain();
  await next.close();
  const sessions = await readdir(join(host.templateDir, '.microvm-rootfs/staging'));
  expect(sessions.length).toBeLessThanOrEqual(1);
  expect(await host.stagedInCatalog()).toEqual([]);
}

describe('aborted', () => {
  test.each(SOURCES)('%s: ABORT_ERR at once and at every step, and nothing is left', async (name) => {
    if (missing !== undefined) return expect.fail(missing);
    const site = await rig();
    const { registry } = site.host;
    const source = site.at(name);
    await rejection(registry.publishStack('debian', source, { signal: AbortSignal.abort() }), 'ABORT_ERR');
    for (const step of ['read', 'hash'] as const) {
      // A raw image that is reflinked, and what programs read, is not read by us.
      const controller = new AbortController();
      let seen = false;
      const outcome = registry
        .publishStack('debian', source, {
          signal: controller.signal,
          onProgress: (progress) => {
            seen ||= progress.step === step;
            if (seen) controller.abort();
          },
        })
        .then(() => registry.removeStack('debian'));
      if (step === 'hash') await rejection(outcome, 'ABORT_ERR');
      else await outcome.catch(({ code }) => expect(code).toBe('ABORT_ERR'));
      expect(await site.host.stagedInCatalog()).toEqual([]);
      expect(await registry.stacks()).toEqual([]);
    }
  });

  test('while a program runs: it is killed', async () => {
    const host = await Host.in();
    await mkdir(join(host.root, 'tree'));
    const mke2fs = join(host.root, 'mke2fs');
    await writeFile(mke2fs, `#!/bin/sh\necho $$ > ${host.root}/pid\nexec tail -f /dev/null\n`, {
      mode: 0o755,
    });
    const controller = new AbortController();
    const call = host
      .anotherRegistry({ mke2fsBin: mke2fs })
      .publishStack('debian', join(host.root, 'tree'), { signal: controller.signal });
    const started = rejection(call, 'ABORT_ERR');
    while (!(await exists(`${host.root}/pid`))) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    await started;
    expect(await host.stagedInCatalog()).toEqual([]);
  });
});

describe('at once', () => {
  test('of many calls for a new stack, in several processes, one publishes and the others say STACK_EXISTS', async () => {
    const site = await rig();
    const { config } = site.host.registry;
    const call = { config, source: site.at('raw'), replace: false };
    const children = Array.from({ length: 3 }, () => runChild(PUBLISH, call));
    const own = Array.from({ length: 3 }, () =>
      site.host.registry.publishStack('debian', site.at('raw')).then(
        ({ sha256 }) => `published ${sha256}\n`,
        ({ code }) => `${code}\n`,
      ),
    );
    const said = [
      ...(await Promise.all(children)).map(({ stdout }) => stdout),
      ...(await Promise.all(own)),
    ].sort();
    const sha256 = await sha256Of(site.host.template('debian'));
    expect(said).toEqual([...Array(5).fill('STACK_EXISTS\n'), `published ${sha256}\n`]);
  });

  test('replaced and removed by several, a stack is always whole or absent', async () => {
    const site = await rig();
    const { registry } = site.host;
    await registry.publishStack('debian', site.at('old'));
    const whole = new Set([site.old, await sha256Of(site.at('raw'))]);
    const child = startChild(
      `const registry = new lib.RootfsRegistry(args.config);
       for (let i = 0; i < 10; i++) await registry.publishStack('debian', args.source, { replace: true });
       await registry.close();`,
      { config: registry.config, source: site.at('raw') },
    );
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
    let running = true;
    void ended.then(() => {
      running = false;
    });
    while (running) {
      await registry.removeStack('debian', { force: true });
      await registry.publishStack('debian', site.at('old'), { replace: true });
      const found = await registry.stack('debian').catch(({ code }) => code);
      if (typeof found === 'object') expect(whole).toContain(found.sha256);
      else expect([undefined, 'TEMPLATE_CHANGED']).toContain(found);
    }
    expect(await ended).toBe(0);
    expect(whole).toContain(await sha256Of(site.host.template('debian')));
  });

  test('a clone that is made while its template is replaced is of one of the two', async () => {
    const site = await rig();
    const { registry } = site.host;
    await registry.publishStack('debian', site.at('old'));
    const replacing = Promise.all([
      registry.publishStack('debian', site.at('raw'), { replace: true }),
      registry.publishStack('debian', site.at('old'), { replace: true }),
    ]);
    for (let i = 0; i < 30; i++) {
      const clone = await registry.cloneForVm(`vm-${i}`, 'debian', { writable: true });
      expect(await sha256Of(clone.path)).toBe(clone.sourceSha256);
    }
    await replacing;
  });
});

test('a registry that is closed meanwhile publishes first, and the digest is known to the next process', async () => {
  const { host, at } = await rig();
  await mkdir(host.clonesDir, { recursive: true });
  let closing: Promise<void> | undefined;
  const { sha256 } = await host.registry.publishStack('debian', at('raw'), {
    onProgress: () => {
      closing ??= host.registry.close();
    },
  });
  await closing;
  expect(sha256).toBe(await sha256Of(host.template('debian')));
  await rejection(host.registry.publishStack('again', at('raw')), 'CLOSED');
  const digests = join(host.clonesDir, '.microvm-rootfs/digests');
  const lines = await Promise.all((await readdir(digests)).map((name) => readlink(join(digests, name))));
  expect(lines.join()).toContain(sha256);
});
