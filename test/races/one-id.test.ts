// A hundred callers want the same id at once.
import { expect, test } from 'vitest';
import { exitOf, printed, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { pattern } from '../fixtures/images.js';

const BYTES = pattern(256 * 1024);

describeEachFilesystem(
  ({ path }) => {
    async function onlyOneWasMade(host: Host, reused: readonly boolean[]): Promise<void> {
      expect(reused).toHaveLength(100);
      expect(reused.filter((one) => !one)).toHaveLength(1);
      expect(await host.slotNames()).toEqual(['vm-1']);
      expect(await host.stampOf('vm-1')).toBe(sha256(BYTES));
      expect(await sha256Of(host.slot('vm-1').image)).toBe(sha256(BYTES));
    }

    test('100 clones of one id at once, cold: one slot is made, 99 are reused', async () => {
      const host = await Host.in(path);
      await host.addTemplate('debian', BYTES);
      const registries = [host.registry, host.anotherRegistry()];
      const clones = await Promise.all(
        Array.from({ length: 50 }).flatMap(() =>
          registries.map((registry) => registry.cloneForVm('vm-1', 'debian', { writable: true })),
        ),
      );
      await onlyOneWasMade(
        host,
        clones.map(({ reused }) => reused),
      );
    });

    test('100 clones of one id at once in four processes: one slot is made, 99 are reused', async () => {
      const host = await Host.in(path);
      await host.addTemplate('debian', BYTES);
      const children = Array.from({ length: 4 }, () =>
        startChild(CLONE_WHEN_TOLD, { templateDir: host.templateDir, clonesDir: host.clonesDir }),
      );
      const exits = children.map(exitOf);
      await Promise.all(children.map((child) => printed(child, 'ready')));
      for (const child of children) child.stdin?.end();
      const reused = (await Promise.all(exits)).flatMap(({ code, stdout, stderr }) => {
        expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
        return JSON.parse(stdout.replace('ready\n', '')) as boolean[];
      });
      await onlyOneWasMade(host, reused);
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

const CLONE_WHEN_TOLD = `
  const registry = new lib.RootfsRegistry(args);
  process.stdin.resume();
  console.log('ready');
  await new Promise((resolve) => process.stdin.on('end', resolve));
  const clones = await Promise.all(
    Array.from({ length: 25 }, () => registry.cloneForVm('vm-1', 'debian', { writable: true })),
  );
  await registry.close();
  console.log(JSON.stringify(clones.map(({ reused }) => reused)));
`;
