// push, pull and remote: what they print, and how they end.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hostFor, publishFiles } from '../fixtures/fleet.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { lacks } from '../fixtures/tools.js';
import { cli, cliError, cliJson } from './run-cli.js';

const missing = lacks('docker-registry', 'zstd', 'mke2fs');

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
  },
);
