// The power goes while stacks and snapshots are pulled, and after: what is there is whole, what was promised is there,
// and the next pull goes on with what the disk has kept.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { RootfsRegistry } from '../../src/index.js';
import { exists, sha256Of } from '../fixtures/files.js';
import { hostWithSnapshot, publishFiles } from '../fixtures/fleet.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { lacks } from '../fixtures/tools.js';
import { describeEachDisk, use } from './cut-hosts.js';
import { cutWhile } from './cut-while.js';
import type { CutHost } from './host.js';

const CUTS = Math.ceil(Number(process.env.POWER_CUTS ?? 24) / 6);

const missing = lacks('docker-registry', 'zstd', 'mke2fs');

/** What is pulled, and the digests of the images. */
interface Source {
  readonly config: { readonly registries: Readonly<Record<string, { insecure: true }>> };
  readonly reference: (tag: string) => string;
  readonly digests: readonly [string, string];
}

/** The calls, in the order in which they are made; each is looked for after a cut. */
const STEPS = ['pull', 'update', 'snapshot'] as const;

describeEachDisk((_kind, bench) => {
  test('resolved pulls are there', async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { disk, host } = await bench();
    const source = await makeSource();
    const copy = await disk.fresh(() =>
      use(
        host,
        async (registry) => {
          await pullAll(registry, source, () => {});
          return disk.cut();
        },
        source.config,
      ),
    );
    await disk.restarted(copy, () => look(host, source, STEPS.length));
  });

  test('cut while they are made, each is whole or absent, and goes on', {
    timeout: 1_800_000,
  }, async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const cut = await bench();
    const source = await makeSource();
    await cutWhile(cut, CUTS, {
      what: 'stacks and snapshots are pulled',
      count: STEPS.length,
      lastMs: 1000,
      config: source.config,
      make: (registry, onStep) => pullAll(registry, source, onStep),
      look: (done) => look(cut.host, source, done),
    });
  });
});

async function makeSource(): Promise<Source> {
  const { host: registry } = await startOciRegistry();
  const reference = (tag: string) => `${registry}/app:${tag}`;
  const sender = await hostWithSnapshot([registry]);
  const first = await sender.registry.pushStack('app', reference('1'));
  await sender.registry.pushSnapshot('before', reference('paused'));
  const second = await publishFiles(sender, 'app', { megabytes: 4, different: [1] });
  await sender.registry.pushStack('app', reference('2'));
  return {
    config: { registries: { [registry]: { insecure: true } } },
    reference,
    digests: [first.sha256, second],
  };
}

async function pullAll(registry: RootfsRegistry, { reference }: Source, onStep: () => void): Promise<void> {
  await registry.pullStack(reference('1'));
  onStep();
  await registry.pullStack(reference('2'), { replace: true });
  onStep();
  await registry.pullSnapshot(reference('paused'), { name: 'paused' });
  onStep();
}

/** The first `done` steps are there; of the others none but the next, and that whole. */
async function look(host: CutHost, source: Source, done: number): Promise<void> {
  const [first, second] = source.digests;
  await use(
    host,
    async (registry) => {
      const stack = await registry.stack('app');
      expect([[undefined, first], [first, second], [second], [second]][done]).toContain(stack?.sha256);
      if (stack !== undefined) expect(await sha256Of(stack.templatePath)).toBe(stack.sha256);

      const snapshots: string[] = [];
      for await (const { name } of registry.snapshots()) snapshots.push(name);
      expect(snapshots.length === 1 || done < 3).toBe(true);
      for (const name of snapshots) await registry.verifySnapshot(name);
      if (done < 2) expect(snapshots).toEqual([]);

      if (stack?.sha256 !== second) await registry.pullStack(source.reference('1'));
      await registry.pullStack(source.reference('2'), { replace: true });
      expect(await sha256Of(join(host.templateDir, 'app/rootfs.ext4'))).toBe(second);
      await registry.pullSnapshot(source.reference('paused'), { name: 'paused' });
      await registry.verifySnapshot('paused');
      await registry.recover();
      expect(await partialPulls(host)).toEqual([]);
    },
    source.config,
  );
}

async function partialPulls({ templateDir, clonesDir }: CutHost): Promise<string[]> {
  const folders = [templateDir, join(clonesDir, '.microvm-rootfs/snapshots')];
  const found: string[] = [];
  for (const folder of folders) {
    const pulls = join(folder, '.microvm-rootfs/pulls');
    if (await exists(pulls)) found.push(...(await readdir(pulls)).filter((name) => !name.startsWith('.')));
  }
  return found;
}
