// Many processes on the same ids: see hammer.cjs for what each of them does and looks at.
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { safeVmId } from '../../src/index.js';
import { runChild } from '../fixtures/child.js';
import { PristineImages } from '../fixtures/disk-states.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { GROWN_BYTES, makeGrowable, TEMPLATE_BYTES } from '../fixtures/growable.js';
import { Host } from '../fixtures/host.js';
import { readWholeSlot } from './whole-slot.js';

// In all, of a usual run: 9,000 here, the rest in property.test.ts.
const CALLS = Number(process.env.RACE_CALLS ?? 1500);
const SEED = Number(process.env.RACE_SEED ?? Math.floor(Math.random() * 2 ** 31));

interface Seen {
  readonly calls: number;
  readonly looks: number;
  readonly owned: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly faults: readonly string[];
}

describeEachFilesystem(
  ({ name, path }) => {
    test.each([2, 8])(
      `%i processes, ${CALLS} calls: every slot is whole, and a VM never sees another's bytes (seed ${SEED})`,
      async (processes) => {
        const host = await Host.in(path);
        const pristine = new PristineImages();
        const growable = await makeGrowable(host.root, pristine);
        await host.addTemplate('debian', growable.bytes);
        const locks = join(host.root, 'locks');
        await mkdir(locks);
        const { sha256, bytes, markOffset } = growable;
        await writeFile(join(host.root, 'source.ext4'), bytes);
        const args = {
          config: { templateDir: host.templateDir, clonesDir: host.clonesDir },
          locks,
          source: join(host.root, 'source.ext4'),
          exports: join(host.root, 'exports'),
          calls: Math.ceil(CALLS / processes),
          sizes: { template: TEMPLATE_BYTES, grown: GROWN_BYTES },
          digests: {
            [TEMPLATE_BYTES]: sha256,
            [GROWN_BYTES]: pristine.get(sha256, GROWN_BYTES)?.digest,
          },
          sha256,
          markOffset,
          originalAtMark: bytes.subarray(markOffset, markOffset + 512).toString('base64'),
        };
        const program = `await require(${JSON.stringify(resolve('test/races/hammer.cjs'))})(lib, args);`;
        const exits = await Promise.all(
          Array.from({ length: processes }, (_, me) => runChild(program, { ...args, me, seed: SEED + me })),
        );
        const seen = exits.map(({ code, stdout, stderr }) => {
          expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
          return JSON.parse(stdout) as Seen;
        });
        console.log(`${name}, ${processes} processes: ${summary(seen)}`);
        expect(seen.flatMap(({ faults }) => faults)).toEqual([]);

        expect(await host.registry.recover()).toMatchObject({
          tornSlots: [],
          tornInUse: [],
          settledSlots: [],
        });
        expect([...(await host.leftovers()), ...(await host.stagedInCatalog())]).toEqual([]);
        for (const slot of await host.slotNames()) {
          const { rawId, mark } = await readWholeSlot(host, slot, pristine, growable);
          expect(safeVmId(rawId)).toBe(slot);
          expect(mark).toBeUndefined();
        }
      },
      300_000,
    );
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

function summary(seen: readonly Seen[]): string {
  const sum = (of: (one: Seen) => number) => seen.reduce((total, one) => total + of(one), 0);
  const outcomes: Record<string, number> = {};
  for (const one of seen) {
    for (const [outcome, times] of Object.entries(one.outcomes)) {
      outcomes[outcome] = (outcomes[outcome] ?? 0) + times;
    }
  }
  return (
    `${sum(({ calls }) => calls)} calls, ${sum(({ looks }) => looks)} images read, ` +
    `${sum(({ owned }) => owned)} lives of VMs, ${JSON.stringify(outcomes)}`
  );
}
