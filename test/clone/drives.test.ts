// Clones as VMMs want to be told of them. QEMU is asked itself; of Firecracker and Cloud Hypervisor there is no
// package, so what their published descriptions ask for is written down here: `Drive` in firecracker.yaml (commit
// 004d935), `DiskConfig` in vmm/src/config.rs and in the OpenAPI description of Cloud Hypervisor (commit ae44c29,
// August 2026).
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { toCloudHypervisorDisk, toFirecrackerDrive, toQemuDrive } from '../../src/index.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { thrown } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const FIRECRACKER_DRIVE = {
  required: ['drive_id', 'is_root_device'],
  properties: {
    drive_id: 'string',
    partuuid: 'string',
    is_root_device: 'boolean',
    cache_type: 'string',
    is_read_only: 'boolean',
    path_on_host: 'string',
    rate_limiter: 'object',
    io_engine: 'string',
    socket: 'string',
  } as Record<string, string>,
};

const CLOUD_HYPERVISOR_DISK = [
  'path',
  'readonly',
  'direct',
  'iommu',
  'num_queues',
  'queue_size',
  'id',
  'image_type',
];

test('the body that Firecracker’s PUT /drives takes, read-only only where it must be', async () => {
  const host = await Host.in(filesystemNamed('ext4').path);
  await host.addTemplate('debian', 'bytes');
  const writable = toFirecrackerDrive(await host.registry.cloneForVm('a', 'debian', { writable: true }));
  expect(writable).toEqual({
    drive_id: 'rootfs',
    path_on_host: host.slot('a').image,
    is_root_device: true,
    is_read_only: false,
  });
  const shared = await host.registry.cloneForVm('b', 'debian', { writable: false });
  expect(shared.sharesTemplateInode).toBe(true);
  expect(toFirecrackerDrive(shared, { readOnly: false })).toMatchObject({ is_read_only: true });
  expect(toFirecrackerDrive(shared, { id: 'root', path: '/disk' })).toMatchObject({
    drive_id: 'root',
    path_on_host: '/disk',
  });
  for (const [name, value] of Object.entries(writable))
    expect(typeof value).toBe(FIRECRACKER_DRIVE.properties[name]);
  for (const name of FIRECRACKER_DRIVE.required) expect(writable).toHaveProperty(name);
});

test('the value of Cloud Hypervisor’s --disk', () => {
  const disk = toCloudHypervisorDisk({ path: '/srv/vms/vm-1/rootfs.ext4' });
  expect(disk).toBe('path=/srv/vms/vm-1/rootfs.ext4,readonly=off,id=rootfs,image_type=raw');
  for (const pair of disk.split(',')) expect(CLOUD_HYPERVISOR_DISK).toContain(pair.split('=')[0]);
  expect(toCloudHypervisorDisk({ path: '/a,b' }, { readOnly: true })).toBe(
    'path="/a,b",readonly=on,id=rootfs,image_type=raw',
  );
});

test('arguments that QEMU itself takes, also for a path with commas', async ({ skip }) => {
  const reason = lacks('qemu-system-x86_64');
  if (reason !== undefined) skip(reason);
  const host = await Host.in(inject('scratch'));
  await host.addExt4Template('debian', 16 * MiB);
  const { path } = await host.registry.cloneForVm('vm', 'debian', { writable: true });
  const folder = join(host.root, 'a, b,,c');
  await mkdir(folder);
  await copyFile(path, join(folder, 'disk'));
  for (const readOnly of [false, true]) {
    const args = toQemuDrive({ path: join(folder, 'disk') }, { readOnly, id: 'root' });
    const answer = execFileSync(
      'qemu-system-x86_64',
      [
        '-M',
        'q35',
        '-accel',
        'tcg',
        '-m',
        '64',
        '-nodefaults',
        '-display',
        'none',
        '-S',
        '-monitor',
        'stdio',
        ...args,
      ],
      { input: 'info block\nquit\n', encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] },
    );
    expect(answer).toMatch(
      readOnly ? /^root \(.*\): .*disk \(raw, read-only\)/m : /^root \(.*\): .*disk \(raw\)/m,
    );
  }
});

test.each([null, 'vm-1', {}, Promise.resolve()])('what is no clone gives no drive: %o', (rootfs) => {
  for (const drive of [toFirecrackerDrive, toCloudHypervisorDisk, toQemuDrive])
    thrown(() => drive(rootfs as never), 'INVALID_ARGUMENT');
});
