// Numbers for people.

/** @param {number} ns */
export function formatNs(ns) {
  if (ns < 1e6) return `${(ns / 1e3).toFixed(ns < 1e5 ? 1 : 0)} µs`;
  if (ns < 1e9) return `${(ns / 1e6).toFixed(ns < 1e8 ? 1 : 0)} ms`;
  return `${(ns / 1e9).toFixed(2)} s`;
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  if (Math.abs(bytes) < 2 ** 20) return `${(bytes / 2 ** 10).toFixed(0)} KiB`;
  if (Math.abs(bytes) < 2 ** 30) return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

/** @param {number} count */
export function formatCount(count) {
  return count.toLocaleString('en-US', { maximumFractionDigits: count < 100 ? 2 : 0 });
}

/** @typedef {'ns' | 'bytes' | 'requests'} Unit */

/** @param {Unit} unit */
export function formatOf(unit) {
  return { ns: formatNs, bytes: formatBytes, requests: formatCount }[unit];
}
