// From a run's JSON to docs: the charts, the tables of docs/benchmarks.md and the README, and the JSON itself, so that
// all can be made again. node bench/publish.mjs [bench/results/full.json]
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { extentsChart } from './charts/extents.mjs';
import { ratesChart } from './charts/rates.mjs';
import { waysChart } from './charts/ways.mjs';
import { formatCount } from './format.mjs';
import { asyncTable, coldTable, syncTable } from './readme.mjs';
import { fillIn, machineTable, resultTables, targetTable } from './tables.mjs';

/** @typedef {import('./report.mjs').Result} Result */

const docs = new URL('../docs/', import.meta.url).pathname;
const chartsFolder = join(docs, 'charts');
const resultsPath = resolve(process.argv[2] ?? new URL('results/full.json', import.meta.url).pathname);

/** @type {{ startedAt: string, quick: boolean, machine: Record<string, string>, results: Result[] }} */
const { startedAt, machine, results } = JSON.parse(readFileSync(resultsPath, 'utf8'));
const machineLine = `${machine.cpu}, ${machine.kernel}, node ${machine.node}`;

mkdirSync(chartsFolder, { recursive: true });
copyFileSync(resultsPath, join(chartsFolder, 'results.json'));
drawWays('clone', 'A slot from a template of one extent');
drawWays('realistic', 'A slot from a realistic template');
drawWays('grown', 'A slot grown to four times the size');
drawWays('pool', 'A slot made beforehand');
drawExtents();
drawRates('burst', 'A thousand slots at once', formatCount);
drawRates('hash', 'SHA-256 of a file in the page cache', formatCount);
fillIn(join(docs, 'benchmarks.md'), {
  machine: machineTable(startedAt, machine),
  targets: targetTable(results),
  results: resultTables(results),
});
fillIn(new URL('../README.md', import.meta.url).pathname, {
  sync: syncTable(results),
  async: asyncTable(results),
  cold: coldTable(results),
});

/** @param {string} measure @param {string} title */
function drawWays(measure, title) {
  for (const result of resultsOf(measure)) {
    const svg = waysChart(result, { title: `${title}, ${nameOf(result)}`, machine: machineLine });
    save(`${measure}-${result.filesystem}`, svg);
  }
}

function drawExtents() {
  const all = results.filter(({ measure }) => measure.startsWith('extents-'));
  for (const filesystem of new Set(all.map((result) => result.filesystem))) {
    const here = all.filter((result) => result.filesystem === filesystem);
    const [first] = here;
    if (first === undefined) continue;
    save(
      `extents-${filesystem}`,
      extentsChart(here, { title: `What extents cost, ${nameOf(first)}`, machine: machineLine }),
    );
  }
}

/**
 * @param {string} measure
 * @param {string} title
 * @param {(rate: number) => string} format
 */
function drawRates(measure, title, format) {
  for (const result of resultsOf(measure)) {
    const bars = result.rows.flatMap(({ name, summary, amount = 1 }) =>
      summary === undefined ? [] : [{ name, rate: amount / (summary.p50 / 1e9) }],
    );
    const texts = {
      title: `${title}, ${nameOf(result)}`,
      machine: machineLine,
      unit: result.rateUnit ?? '',
      format,
    };
    save(`${measure}-${result.filesystem}`, ratesChart(bars, texts));
  }
}

/** @param {string} measure */
function resultsOf(measure) {
  return results.filter((result) => result.measure === measure);
}

/** @param {Result} result */
function nameOf({ filesystem }) {
  return filesystem === 'xfs' ? 'XFS' : filesystem;
}

/** @param {string} name @param {string} svg */
function save(name, svg) {
  const path = join(chartsFolder, `${name}.svg`);
  writeFileSync(path, `${svg}\n`);
  console.log(path);
}
