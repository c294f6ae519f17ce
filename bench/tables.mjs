// A run's results as Markdown, and putting it where a document has room for it.
import { readFileSync, writeFileSync } from 'node:fs';
import { formatCount, formatOf } from './format.mjs';
import { verdict } from './report.mjs';

/** @typedef {import('./report.mjs').Result} Result */

/**
 * @param {string} startedAt
 * @param {Record<string, string>} machine
 */
export function machineTable(startedAt, machine) {
  return table(['', ''], [['date', startedAt.slice(0, 10)], ...Object.entries(machine)]);
}

/** @param {Result[]} results */
export function targetTable(results) {
  const rows = results.flatMap(({ title, filesystem, targets }) =>
    targets.map((target) => [title, filesystem, target.text, target.value, verdict(target)]),
  );
  return table(['measure', 'on', 'target', 'reached', ''], rows);
}

/** @param {Result[]} results */
export function resultTables(results) {
  return results.map(resultTable).join('\n\n');
}

/** @param {Result} result */
function resultTable({ measure, title, filesystem, about, unit, rateUnit, rows }) {
  const format = formatOf(unit);
  const show = (/** @type {number | undefined} */ value) => (value === undefined ? '–' : format(value));
  const lines = rows.map(({ name, does, summary, unavailable, failed, note, amount }) => {
    if (summary === undefined)
      return [name, unavailable ?? `failed: ${failed}`, '', '', '', ...(rateUnit ? [''] : []), does];
    const { p50, p99, p999, count } = summary;
    const rate = amount === undefined ? '' : formatCount(amount / (p50 / 1e9));
    const what = note === undefined ? does : `${does} (${note})`;
    return [name, show(p50), show(p99), show(p999), String(count), ...(rateUnit ? [rate] : []), what];
  });
  return [
    `### ${title}, ${filesystem}`,
    wrapped(`\`${measure}\`${about === '' ? '' : `: ${about}`}`),
    table(['way', 'p50', 'p99', 'p99.9', 'samples', ...(rateUnit ? [rateUnit] : []), 'what it does'], lines),
  ].join('\n\n');
}

/**
 * @param {string} text
 * @returns {string} in lines of at most 118 bytes
 */
function wrapped(text) {
  return text.replace(/(?=.{119})(.{1,118}) /g, '$1\n');
}

/**
 * Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`.
 * @param {string} path
 * @param {Record<string, string>} parts
 */
export function fillIn(path, parts) {
  let text = readFileSync(path, 'utf8');
  for (const [name, part] of Object.entries(parts)) {
    const open = `<!-- ${name} -->`;
    const close = `<!-- /${name} -->`;
    const start = text.indexOf(open);
    const end = text.indexOf(close, start);
    if (start < 0 || end < 0) throw new Error(`${path} has no room for ${name}: ${open} … ${close}`);
    text = `${text.slice(0, start + open.length)}\n${part}\n${text.slice(end)}`;
  }
  writeFileSync(path, text);
}

/**
 * @param {string[]} header
 * @param {string[][]} rows
 */
export function table(header, rows) {
  const line = (/** @type {string[]} */ cells) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}
