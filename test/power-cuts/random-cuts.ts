// Power cuts at random moments of random histories, on one kind of disk. `npm run test:power-cuts` runs more of them.
import { test } from 'vitest';
import { Random } from '../fixtures/random.js';
import type { DiskKind } from './cut-disk.js';
import { describeEachDisk } from './cut-hosts.js';
import { type Cut, History } from './history.js';
import { Inspection } from './inspection.js';

// With those of sequences.test.ts some 300 on all disks.
const CUTS = Number(process.env.POWER_CUTS ?? 84);
const SEED = Number(process.env.POWER_CUTS_SEED ?? Math.floor(Math.random() * 2 ** 31));

const STEPS = 16;
// The first few tell most.
const FAULTS_SHOWN = 3;

const MODES = [
  { mode: 'mostly durable', durableShare: 0.7 },
  { mode: 'never durable', durableShare: 0 },
];

const cutsEach = Math.ceil(CUTS / MODES.length);

export function randomCuts(on: DiskKind): void {
  describeEachDisk((kind, bench) => {
    test.each(MODES)(
      `what a power cut leaves is whole, as promised, and can be gone on with: $mode (${cutsEach} cuts, seed ${SEED})`,
      async ({ mode, durableShare }) => {
        const { disk, host } = await bench();
        const faults: string[] = [];
        let cuts = 0;
        for (let seed = SEED; cuts < cutsEach; seed++) {
          const history = () => new History(disk, host, new Random(seed), durableShare).run(STEPS);
          const taken = await disk.fresh(history);
          for (const [index, cut] of taken.entries()) {
            const inspection = () => new Inspection(host, cut, new Random(seed + index)).run();
            await disk.restarted(cut.copy, inspection).catch((error) => {
              faults.push(explained(error, cut, kind, seed, index));
            });
          }
          cuts += taken.length;
        }
        console.log(`${kind}, ${mode}: ${cuts} power cuts from seed ${SEED}, ${faults.length} faults`);
        if (faults.length > 0) throw new Error(faults.slice(0, FAULTS_SHOWN).join('\n\n'));
      },
      60_000 + CUTS * 6000,
    );
  }, on);
}

function explained(error: unknown, cut: Cut, kind: DiskKind, seed: number, index: number): string {
  const story = cut.story.map((line) => `    ${line}`);
  const promised = [...cut.promised].map(
    ([id, { possible, mayBeTorn }]) =>
      `    ${id}: ${[...possible].join(' or ')}${mayBeTorn ? ', may be torn' : ''}`,
  );
  const things = [...cut.things].map(
    ([thing, { possible, mayBeTorn }]) =>
      `    ${thing}: ${[...possible].join(' or ')}${mayBeTorn ? ', may be torn' : ''}`,
  );
  const again = `npm run test:power-cuts -- --cuts 40 --seed ${seed} --on ${kind}`;
  return [
    `on ${kind}, cut ${index} of the history with seed ${seed} (${again}): ${(error as Error).message}`,
    ...story,
    '  promised:',
    ...promised,
    ...things,
  ].join('\n');
}
