// What npm run test:guests -- --bench runs in a guest: the benchmark on each of its file systems. Emulation is slow,
// and slows some work more than other. So a row has ratios alone, of medians from one alternation in one guest: how many
// times as long as the library the naive way takes, with a spawned cp --reflink.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const SECONDS = 10;

const RATIOS = [
  { what: 'clone', measure: 'clone', ours: 'library', other: 'cp' },
  { what: 'realistic', measure: 'realistic', ours: 'library', other: 'cp' },
  { what: 'realistic, packed', measure: 'realistic', ours: 'library, packed', other: 'cp' },
  { what: 'grown', measure: 'grown', ours: 'library, grown', other: 'cp + resize2fs' },
  { what: 'pool', measure: 'pool', ours: 'library, pool', other: 'cp' },
];

/** Without reflinks there is nothing to compare. */
export const isForBench = (guest, filesystem) => guest.files === undefined && filesystem.reflinks;

export const bench = {
  header: ['what', ...RATIOS.map(({ what }) => what)],

  commands(rows) {
    const only = [...new Set(RATIOS.map(({ measure }) => measure))].join(',');
    return rows.map(
      ({ path }, index) =>
        `bench/run.mjs --quick --seconds ${SECONDS} --only ${only} --at ${path} --results /guest --name bench-${index}`,
    );
  },

  /** The cells of a file system, and whether all is well. */
  cells(folder, _name, index) {
    let results;
    try {
      ({ results } = JSON.parse(readFileSync(join(folder, `bench-${index}.json`), 'utf8')));
    } catch {
      return { cells: ['FAIL: no results'], passed: false };
    }
    const ratios = RATIOS.map(({ measure, ours, other }) => {
      const rows = results.find((result) => result.measure === measure)?.rows ?? [];
      const p50 = (way) => rows.find(({ name }) => name === way)?.summary?.p50;
      return p50(other) / p50(ours);
    });
    const cells = ratios.map((ratio) => (Number.isNaN(ratio) ? 'FAIL' : `${ratio.toFixed(1)} ×`));
    return { cells, passed: !ratios.some(Number.isNaN) };
  },
};
