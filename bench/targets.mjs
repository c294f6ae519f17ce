// What is to be reached, always as a ratio of two ways measured in the same alternation, or as an absolute bound of
// one.

/**
 * @typedef {object} Target
 * @property {string} text
 * @property {import('./filesystems.mjs').Filesystem[] | undefined} on all the measure's, if undefined
 * @property {(p50: (name: string) => number | undefined) => number | undefined} value
 * @property {number} limit
 * @property {'at most' | 'at least'} bound
 * @property {(value: number) => string} show
 */

/**
 * @typedef {object} Judged
 * @property {string} text
 * @property {string} value
 * @property {boolean | undefined} met undefined if it could not be measured
 */

/**
 * `way` takes at most `limit` times the time of `other`.
 * @param {string} way
 * @param {number} limit
 * @param {string} other
 * @param {import('./filesystems.mjs').Filesystem[]} [on]
 * @returns {Target}
 */
export function atMostTimes(way, limit, other, on) {
  return {
    text: `${way} ≤ ${limit} × ${other}`,
    on,
    value: (p50) => ratio(p50(way), p50(other)),
    limit,
    bound: 'at most',
    show: (value) => `${value.toFixed(2)} ×`,
  };
}

/**
 * `way` is at least `limit` times as fast as `other`.
 * @param {string} way
 * @param {number} limit
 * @param {string} other
 * @param {import('./filesystems.mjs').Filesystem[]} [on]
 * @returns {Target}
 */
export function atLeastTimesFaster(way, limit, other, on) {
  return {
    text: `${way} ≥ ${limit} × faster than ${other}`,
    on,
    value: (p50) => ratio(p50(other), p50(way)),
    limit,
    bound: 'at least',
    show: (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ×`,
  };
}

/**
 * The p50 of `way` is at most `limit`.
 * @param {string} way
 * @param {number} limit
 * @param {(value: number) => string} show
 * @returns {Target}
 */
export function atMost(way, limit, show) {
  return {
    text: `${way} ≤ ${show(limit)}`,
    on: undefined,
    value: (p50) => p50(way),
    limit,
    bound: 'at most',
    show,
  };
}

/**
 * @param {Target} target
 * @param {import('./alternate.mjs').Row[]} rows
 * @returns {Judged}
 */
export function judge(target, rows) {
  const value = target.value((name) => rows.find((row) => row.name === name)?.summary?.p50);
  if (value === undefined) return { text: target.text, value: '–', met: undefined };
  const met = target.bound === 'at most' ? value <= target.limit : value >= target.limit;
  return { text: target.text, value: target.show(value), met };
}

/**
 * @param {number | undefined} a
 * @param {number | undefined} b
 */
function ratio(a, b) {
  return a === undefined || b === undefined ? undefined : a / b;
}
