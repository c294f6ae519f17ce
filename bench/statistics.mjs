// Percentiles by nearest rank, and none that the number of samples cannot carry.

/**
 * @typedef {object} Summary
 * @property {number} count
 * @property {number} min
 * @property {number} p50
 * @property {number | undefined} p99 from 100 samples on
 * @property {number | undefined} p999 from 1,000 samples on
 * @property {number} max
 */

/**
 * @param {number[]} samples at least one
 * @returns {Summary}
 */
export function summarize(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (/** @type {number} */ fraction) =>
    /** @type {number} */ (sorted[Math.max(0, Math.ceil(fraction * sorted.length) - 1)]);
  return {
    count: sorted.length,
    min: at(0),
    p50: at(0.5),
    p99: sorted.length >= 100 ? at(0.99) : undefined,
    p999: sorted.length >= 1000 ? at(0.999) : undefined,
    max: at(1),
  };
}
