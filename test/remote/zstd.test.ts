// The zstd program is missing, fails, dies or stalls during a pull and a push: a typed error that names it, and nothing
// is changed. What was fetched is kept: the registry is not at fault.
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requireLevel } from '../../src/remote/zstd.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import type { Host } from '../fixtures/host.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { rejection, thrown } from '../fixtures/rejection.js';
import { findTool, lacks } from '../fixtures/tools.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs');
const real = findTool('zstd');

interface Setting {
  readonly registry: string;
  /** Has stack `app`, and has pushed it as `app:1`. */
  readonly a: Host;
  readonly b: Host;
  readonly sha256: string;
}

async function setting(): Promise<Setting> {
  const { host: registry } = await startOciRegistry();
  const [a, b] = [await hostFor([registry]), await hostFor([registry])];
  const sha256 = await publishFiles(a, 'app', { megabytes: 6 });
  await a.registry.pushStack('app', `${registry}/app:1`);
  return { registry, a, b, sha256 };
}

/** From now on zstd is this shell script; or there is none. Returns a function that brings the real one back. */
async function replaceZstd(host: Host, script: string | undefined): Promise<() => void> {
  const folder = join(host.root, 'bin');
  await mkdir(folder, { recursive: true });
  if (script !== undefined) {
    await writeFile(join(folder, 'zstd'), `#!/bin/sh\n${script}\n`);
    await chmod(join(folder, 'zstd'), 0o755);
  }
  const before = process.env.PATH;
  process.env.PATH = script === undefined ? folder : `${folder}:${before}`;
  const restore = () => {
    process.env.PATH = before;
  };
  onTestFinished(restore);
  return restore;
}

async function partialPulls(host: Host): Promise<string[]> {
  const folder = join(host.templateDir, '.microvm-rootfs/pulls');
  return (await exists(folder)) ? (await readdir(folder)).filter((name) => !name.startsWith('.')) : [];
}

async function nothingAppeared(host: Host): Promise<void> {
  expect(await exists(host.template('app'))).toBe(false);
  expect(await host.stagedInCatalog()).toEqual([]);
}

const FAULTS = [
  { script: undefined, code: 'PROGRAM_NOT_FOUND', says: /package zstd/ },
  { script: 'kill -9 $$', code: 'PROGRAM_FAILED', says: /killed by SIGKILL/ },
  {
    script: `${real} "$@" | head -c 300000; kill -9 $$`,
    code: 'PROGRAM_FAILED',
    says: /killed by SIGKILL/,
  },
  {
    script: 'echo "zstd: error 11 : Allocation error : not enough memory" >&2; exit 1',
    code: 'PROGRAM_FAILED',
    says: /not enough memory/,
  },
] as const;

describe.skipIf(missing !== undefined)(
  `zstd${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('that is missing or dies during a pull: what was fetched is kept, and the next call goes on', async () => {
      const { registry, b, sha256 } = await setting();
      for (const { script, code, says } of FAULTS) {
        const restore = await replaceZstd(b, script);
        const error = await rejection(b.registry.pullStack(`${registry}/app:1`), code);
        expect(error.message).toMatch(says);
        await nothingAppeared(b);
        expect(await partialPulls(b)).toHaveLength(1);
        restore();
      }
      expect(await b.registry.pullStack(`${registry}/app:1`)).toMatchObject({ sha256 });
      expect(await sha256Of(b.template('app'))).toBe(sha256);
      expect(await partialPulls(b)).toEqual([]);
    });

    test('that is missing or dies during a push: the tag has not moved, and the next call moves it', async () => {
      const { registry, a, b, sha256 } = await setting();
      const next = await publishFiles(a, 'next', { megabytes: 6, different: [3] });
      for (const { script, code, says } of FAULTS) {
        const restore = await replaceZstd(a, script);
        const error = await rejection(a.registry.pushStack('next', `${registry}/app:1`), code);
        expect(error.message).toMatch(says);
        expect(await a.stagedInCatalog()).toEqual([]);
        restore();
      }
      expect(await b.registry.pullStack(`${registry}/app:1`)).toMatchObject({ sha256 });
      await a.registry.pushStack('next', `${registry}/app:1`);
      const update = await b.registry.pullStack(`${registry}/app:1`, { replace: true });
      expect(update).toMatchObject({ sha256: next, replaced: true });
    });

    test('that stalls ends with the call that is aborted', async () => {
      const { registry, a, b, sha256 } = await setting();
      await publishFiles(a, 'next', { megabytes: 6, different: [3] });
      for (const host of [a, b]) {
        const pids = join(host.root, 'pids');
        const restore = await replaceZstd(host, `echo $$ >>${pids}; exec sleep 600`);
        const abort = new AbortController();
        const options = { signal: abort.signal };
        const transfer =
          host === a
            ? a.registry.pushStack('next', `${registry}/app:1`, options)
            : b.registry.pullStack(`${registry}/app:1`, options);
        const aborted = rejection(transfer, 'ABORT_ERR');
        while (!(await exists(pids))) await sleep(5);
        abort.abort();
        await aborted;
        for (const pid of (await readFile(pids, 'utf8')).trim().split('\n'))
          expect(() => process.kill(Number(pid), 0)).toThrow('ESRCH');
        restore();
      }
      await nothingAppeared(b);
      expect(await a.stagedInCatalog()).toEqual([]);
      expect(await b.registry.pullStack(`${registry}/app:1`)).toMatchObject({ sha256 });
    });
  },
);

test('a level is one of those that zstd has', () => {
  expect([undefined, 1, 19, 22].map(requireLevel)).toEqual([3, 1, 19, 22]);
  for (const level of [0, 23, -1, 1.5, '3', null, Number.NaN])
    thrown(() => requireLevel(level), 'INVALID_ARGUMENT');
});
