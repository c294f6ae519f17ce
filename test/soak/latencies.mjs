// Latencies of very many calls in a memory that does not grow: a histogram for each kind of call and each tenth of the
// run.

const STEPS_PER_DOUBLING = 8;
const TENTHS = 10;

/** @typedef {Record<string, Record<number, number>[]>} Latencies of each kind, by tenth: how often, by step */

export class LatencyRecorder {
  /** @type {Latencies} */
  latencies = {};
  #startedAt = performance.now();
  #tenthMs;

  /** @param {number} minutes */
  constructor(minutes) {
    this.#tenthMs = (minutes * 60_000) / TENTHS;
  }

  /**
   * @param {string} kind
   * @param {number} startedAt
   */
  record(kind, startedAt) {
    const now = performance.now();
    const tenth = Math.min(TENTHS - 1, Math.floor((now - this.#startedAt) / this.#tenthMs));
    const step = Math.round(Math.log2(Math.max(1, (now - startedAt) * 1000)) * STEPS_PER_DOUBLING);
    this.latencies[kind] ??= Array.from({ length: TENTHS }, () => ({}));
    const counts = this.latencies[kind][tenth];
    counts[step] = (counts[step] ?? 0) + 1;
  }
}

/** @param {Latencies} latencies */
export function formatLatencies(latencies) {
  const rows = Object.entries(latencies).map(([kind, tenths]) => {
    const part = (counts) => `p50 ${quantile(counts, 0.5)}, p99 ${quantile(counts, 0.99)}`;
    return `${kind.padEnd(17)}first tenth ${part(tenths[0])}; last tenth ${part(tenths[TENTHS - 1])}`;
  });
  return rows.join('\n');
}

/**
 * @param {Record<number, number>} counts
 * @param {number} share
 */
function quantile(counts, share) {
  const steps = Object.entries(counts).sort(([a], [b]) => Number(a) - Number(b));
  let left = share * steps.reduce((sum, [, count]) => sum + count, 0);
  for (const [step, count] of steps) {
    left -= count;
    if (left <= 0) return `${(2 ** (Number(step) / STEPS_PER_DOUBLING) / 1000).toFixed(2)} ms`;
  }
  return 'none';
}
