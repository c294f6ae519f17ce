// What the terminal shows.
import { formatCount, formatOf } from './format.mjs';

/**
 * @typedef {object} Result
 * @property {number} tookSeconds with the making of the templates
 * @property {string} measure
 * @property {string} title
 * @property {string} filesystem
 * @property {string} about the subject, and what else is to be known
 * @property {import('./format.mjs').Unit} unit
 * @property {string} [rateUnit]
 * @property {import('./alternate.mjs').Row[]} rows
 * @property {import('./targets.mjs').Judged[]} targets
 */

/** @param {Result} result */
export function formatResult({
  tookSeconds,
  measure,
  title,
  filesystem,
  about,
  unit,
  rateUnit,
  rows,
  targets,
}) {
  const format = formatOf(unit);
  const show = (/** @type {number | undefined} */ value) => (value === undefined ? '–' : format(value));
  const base = rows.find(({ name, summary }) => name.startsWith('library') && summary !== undefined)?.summary
    ?.p50;
  const header = [
    '',
    'p50',
    'p99',
    'p99.9',
    'samples',
    'ratio',
    ...(rateUnit === undefined ? [] : [rateUnit]),
  ];
  const lines = rows.map(({ name, summary, unavailable, failed, note, amount }) => {
    if (summary === undefined)
      return [name, unavailable !== undefined ? `not available: ${unavailable}` : `FAILED: ${failed}`];
    const { p50, p99, p999, count } = summary;
    const ratio = base === undefined || base === 0 ? '–' : `${formatCount(p50 / base)} ×`;
    const perSecond = amount === undefined ? [] : [formatCount(amount / (p50 / 1e9))];
    return [
      name,
      show(p50),
      show(p99),
      show(p999),
      String(count),
      ratio,
      ...perSecond,
      ...(note === undefined ? [] : [note]),
    ];
  });
  return [
    `\n${measure} on ${filesystem}: ${title}  (${tookSeconds} s)`,
    ...(about === '' ? [] : [`  ${about}`]),
    ...columns([header, ...lines]).map((line) => `  ${line}`),
    ...targets.map((target) => `  ${verdict(target)}  ${target.text}: ${target.value}`),
  ].join('\n');
}

/** @param {Result[]} results */
export function formatTargets(results) {
  const lines = results.flatMap(({ measure, filesystem, targets }) =>
    targets.map((target) => [verdict(target), `${measure}, ${filesystem}`, target.text, target.value]),
  );
  return ['\nTargets', ...columns(lines).map((line) => `  ${line}`)].join('\n');
}

/** @param {import('./targets.mjs').Judged} target */
export function verdict({ met }) {
  return met === undefined ? 'not available' : met ? 'met' : 'NOT MET';
}

/**
 * Left-aligned first column, the others under each other.
 * @param {string[][]} rows
 */
function columns(rows) {
  // A message in the second column may run on to the right.
  const full = rows.filter((row) => row.length > 2);
  const widths = (full[0] ?? []).map((_, i) =>
    Math.max(...(i === 0 ? rows : full).map((row) => row[i]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
