// The examples run as a reader runs them, do what they say, and leave nothing.
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeEach, describe, expect, inject, test } from 'vitest';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { lacks } from '../fixtures/tools.js';

const exec = promisify(execFile);

beforeEach(({ skip }) => {
  const missing = lacks('mke2fs', 'resize2fs');
  if (missing) skip(missing);
});

const reflinking = inject('filesystems').filter(({ name }) => name === 'XFS' || name === 'ext4');

describe.each(reflinking)('on $name', ({ path, missing, reflinks }) => {
  test.skipIf(missing)('scheduler: four VMs, one of them larger', async () => {
    const host = await hostIn(path);
    const { status, stdout } = await run(host, 'scheduler.mjs', '0');
    expect(status).toBe(0);
    expect(stdout.trim().split('\n')).toHaveLength(4);
    expect(stdout).toMatch(/vm-large: .*, 33554432 bytes/);
    expect(await host.slotNames()).toEqual([]);
  });

  test.skipIf(missing)('snapshot and verify', async () => {
    const host = await hostIn(path);
    const { status, stdout } = await run(host, 'snapshot-and-verify.mjs');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^[0-9a-f]{64} {2}rootfs\.ext4 \(16777216 bytes\)$/m);
    expect(stdout).toMatch(/^verified$/m);
    expect(stdout).toContain(reflinks ? 'by reflink' : 'by copy');
    expect(await host.slotNames()).toEqual([]);
    expect(await readdir(join(host.clonesDir, '.microvm-rootfs/snapshots'))).toEqual(['.microvm-rootfs']);
  });

  test.skipIf(missing)('a warm pool in a worker thread', async () => {
    const host = await hostIn(path);
    const { status, stdout } = await run(host, 'warm-pool-worker.mjs');
    expect(status).toBe(0);
    expect(stdout).toBe('8 disks, 8 of them from the pool\n');
    expect(await host.slotNames()).toEqual([]);
  });

  test.skipIf(missing)('Firecracker: says what is missing, and what it would boot', async () => {
    const host = await hostIn(path);
    const { status, stdout } = await run(host, 'firecracker-boot.mjs', '/nowhere/vmlinux');
    expect(status).toBe(0);
    expect(stdout).toContain('the kernel /nowhere/vmlinux');
    const config = JSON.parse(stdout.slice(stdout.indexOf('\n{')));
    expect(config.drives[0]).toMatchObject({ is_root_device: true, is_read_only: false });
    expect(config.drives[0].path_on_host).toMatch(/\/rootfs\.ext4$/);
    expect(await host.slotNames()).toEqual([]);
  });
});

test.each(['scheduler.mjs', 'snapshot-and-verify.mjs', 'warm-pool-worker.mjs', 'firecracker-boot.mjs'])(
  '%s fails with the code of an error, and leaves nothing',
  async (example) => {
    const host = await Host.in();
    const { status, stderr } = await run(host, example, '0');
    expect(status).toBe(1);
    expect(stderr).toContain('STACK_NOT_FOUND');
    expect(await host.slotNames()).toEqual([]);
  },
);

test('the demo mounts the XFS that comes with it, and leaves nothing', async ({ skip }) => {
  if (process.getuid?.() !== 0) skip('mounting needs root');
  const env = { ...process.env, TMPDIR: await mkdtemp(join(tmpdir(), 'demo-')) };
  // A folder that cannot reflink and has room.
  await exec('mount', ['-t', 'tmpfs', '-o', 'size=2G', 'demo', env.TMPDIR]);
  try {
    const { stdout } = await exec(process.execPath, ['examples/demo.cjs', '--may-mount'], { env });
    expect(stdout).toContain('a temporary XFS');
    expect(stdout).toContain('nothing is left behind');
    expect(await readdir(env.TMPDIR)).toEqual([]);
  } finally {
    await exec('umount', ['--lazy', env.TMPDIR]);
    await rm(env.TMPDIR, { recursive: true });
  }
}, 60_000);

async function hostIn(path: string): Promise<Host> {
  const host = await Host.in(path);
  await host.addExt4Template('debian-12', 16 * MiB);
  return host;
}

interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(host: Host, example: string, ...args: string[]): Promise<Outcome> {
  const command = [join('examples', example), host.templateDir, host.clonesDir, 'debian-12', ...args];
  return new Promise((resolve) => {
    execFile(process.execPath, command, (error, stdout, stderr) =>
      resolve({ status: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

test('the fleet demo pulls an update with fewer bytes than the template', async ({ skip }) => {
  const missing = lacks('docker-registry', 'skopeo', 'zstd');
  if (missing) skip(missing);
  const env = { ...process.env, DEMO_MEGABYTES: '16' };
  const { stdout } = await exec(process.execPath, ['examples/fleet.cjs'], { env });
  const pulled = [...stdout.matchAll(/^pull the \w+ +([\d.]+) MiB/gm)].map(([, bytes]) => Number(bytes));
  expect(pulled).toHaveLength(2);
  expect(pulled[1]).toBeLessThan(pulled[0] as number);
  expect(stdout).toContain('has a disk of the update');
}, 120_000);
