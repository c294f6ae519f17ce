// push, pull and remote, of templates and snapshots: what they print, and how they end.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hostFor, hostWithSnapshot, publishFiles } from '../fixtures/fleet.js';
import { Host } from '../fixtures/host.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { lacks } from '../fixtures/tools.js';
import { cli, cliError, cliJson } from './run-cli.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs');

test('a password in a reference is not shown', async () => {
  const host = await Host.in();
  await host.addTemplate('web', 'x');
  const reference = 'user:S3CRET@registry.invalid/x:1';
  for (const words of [
    ['remote', `https://${reference}`],
    ['push', 'web', reference],
    ['push', 'web', 'registry.invalid/x:1', '--base', reference],
    ['push-snapshot', 'web', reference],
    ['pull', reference],
    ['pull-snapshot', reference],
    ['publish', 'w', `docker://${reference}`],
    ['publish', 'w', `docker://${reference}@sha256:${'a'.repeat(64)}`],
  ]) {
    const { code, stdout, stderr } = await cli(host, [...words, '--json', '--verbose']);
    expect([words[0], code, stdout, JSON.parse(stderr).error.code]).toEqual([
      words[0],
      2,
      '',
      'REFERENCE_INVALID',
    ]);
    expect(stderr).not.toContain('S3CRET');
  }
});

describe.skipIf(missing !== undefined)(
  `the command${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 120_000 },
  () => {
    test('pushes, shows and pulls a template', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostFor([registry]), await hostFor([registry])];
      const sha256 = await publishFiles(a, 'app', { megabytes: 2 });
      const config = join(a.root, 'settings.json');
      await writeFile(config, JSON.stringify({ registries: { [registry]: { insecure: true } } }));
      const reference = `${registry}/app:1`;
      const pushed = await cliJson(a, ['push', 'app', reference, '--level', '1', '--config', config]);
      expect(Object.keys(pushed)).toEqual([
        'reference',
        'digest',
        'sha256',
        'sizeBytes',
        'uploadedBytes',
        'reusedBytes',
      ]);
      const shown = await cliJson<{ missingBytes: number }>(b, ['remote', reference, '--config', config]);
      expect(shown).toMatchObject({ reference, sha256, artifactType: expect.stringContaining('stack.v1') });
      expect(shown.missingBytes).toBeGreaterThan(2_000_000);
      const { stdout } = await cli(b, ['pull', reference, '--name', 'mine', '--config', config]);
      expect(stdout).toMatch(/Stack +mine\n/);
      expect(stdout).toMatch(/Fetched +2\.\d MiB/);
      const again = await cliJson(b, ['pull', reference, '--name', 'mine', '--config', config]);
      expect(again).toMatchObject({ name: 'mine', sha256, unchanged: true, downloadedBytes: 0 });
      expect(await cliJson(b, ['remote', reference, '--config', config])).toMatchObject({ missingBytes: 0 });
      const settings = ['--config', config];
      expect(await cliError(b, ['pull', `${registry}/app:none`, ...settings])).toBe('REGISTRY_NOT_FOUND 3');
      expect(await cliError(b, ['pull', 'app'])).toBe('REFERENCE_INVALID 2');
      expect(await cliError(b, ['push', 'none', reference, ...settings])).toBe('STACK_NOT_FOUND 3');
    });

    test('pushes, shows and pulls a snapshot', async () => {
      const { host: registry } = await startOciRegistry();
      const [a, b] = [await hostWithSnapshot([registry]), await hostFor([registry])];
      const config = join(a.root, 'settings.json');
      await writeFile(config, JSON.stringify({ registries: { [registry]: { insecure: true } } }));
      const settings = ['--config', config];
      const reference = `${registry}/moves:1`;
      const pushed = await cliJson<{ digest: string; sha256: string }>(a, [
        'push-snapshot',
        'before',
        reference,
        ...settings,
      ]);
      expect(pushed).toMatchObject({ reference, reusedBytes: 0 });
      const { stdout: shown } = await cli(b, ['remote', reference, ...settings]);
      expect(shown).toMatch(/^VM +vm\/1\n.*^Files +rootfs.ext4, vm 1.mem, state\n/ms);
      const pull = ['pull-snapshot', reference, '--name', 'mine', '--sha256', pushed.sha256, ...settings];
      const { stdout } = await cli(b, pull);
      expect(stdout).toMatch(/Fetched +6\.\d MiB\n/);
      expect(stdout).toMatch(/Snapshot +mine\n/);
      expect(await cliJson(b, pull)).toMatchObject({
        name: 'mine',
        vmId: 'vm/1',
        stack: 'app',
        files: [{ name: 'rootfs.ext4' }, { name: 'vm 1.mem' }, { name: 'state', sizeBytes: 0 }],
        digest: pushed.digest,
        downloadedBytes: 0,
        unchanged: true,
      });
      expect(await cliJson(b, ['restore', 'mine', 'vm-2'])).toMatchObject({ vmId: 'vm-2' });
      expect(await cliError(b, ['pull', reference, ...settings])).toBe('ARTIFACT_INVALID 1');
      expect(await cliError(b, ['push-snapshot', 'none', reference, ...settings])).toBe(
        'SNAPSHOT_NOT_FOUND 3',
      );
    });
  },
);
