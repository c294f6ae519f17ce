// What npm run test:guests -- --bench runs in a guest: the benchmark on its file systems. Emulation is slow, and
// slows some work more than other work. So a row has ratios alone, of medians from one alternation in one guest: how
// many times as long as the library the naive way takes, with a spawned cp --reflink.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const SECONDS = 30;
// Making and hashing images of 2 GiB would take hours.
const IMAGE_MIB = 128;

const RATIOS = [
  { what: 'clone', measure: 'clone', ours: 'library', other: 'cp' },
  { what: 'realistic', measure: 'realistic', ours: 'library', other: 'cp' },
  { what: 'realistic, packed', measure: 'realistic', ours: 'library, packed', other: 'cp' },
  { what: 'grown', measure: 'grown', ours: 'library, grown', other: 'cp + resize2fs' },
  { what: 'pool', measure: 'pool', ours: 'library, pool', other: 'cp' },
];

/** Without reflinks there is nothing to compare. */
export const isForBench = (guest, filesystem) => guest.files === undefined && filesystem.reflinks;

/** All measures that have a ratio here, or these. */
export function bench(measures) {
  const ratios = RATIOS.filter(({ measure }) => measures.length === 0 || measures.includes(measure));
  const only = [...new Set(ratios.map(({ measure }) => measure))].join(',');
  return {
    header: ['what', ...ratios.map(({ what }) => what)],

    commands: (rows) =>
      rows.map(({ path }, index) => {
        const where = `--at ${path} --results /guest --name bench-${index}`;
        return `bench/run.mjs --quick --seconds ${SECONDS} --image-mib ${IMAGE_MIB} --only ${only} ${where}`;
      }),

    /** The cells of a file system, and whether all is well. */
    cells(folder, _name, index) {
      let results;
      try {
        ({ results } = JSON.parse(readFileSync(join(folder, `bench-${index}.json`), 'utf8')));
      } catch {
        return { cells: ['FAIL: no results'], passed: false };
      }
      const times = ratios.map(({ measure, ours, other }) => {
        const rows = results.find((result) => result.measure === measure)?.rows ?? [];
        const p50 = (way) => rows.find(({ name }) => name === way)?.summary?.p50;
        return p50(other) / p50(ours);
      });
      const cells = times.map((ratio) => (Number.isNaN(ratio) ? 'FAIL' : `${ratio.toFixed(1)} ×`));
      return { cells, passed: !times.some(Number.isNaN) };
    },
  };
}
