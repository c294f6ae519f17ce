// The tables of the README: the ways to make one slot, and what is done for the first time.
import { formatBytes, formatNs } from './format.mjs';
import { table } from './tables.mjs';

/** @typedef {import('./report.mjs').Result} Result */

const FILESYSTEMS = /** @type {const} */ ([
  ['xfs', 'XFS'],
  ['btrfs', 'btrfs'],
]);

/** What the README calls a contestant, and its name. */
const SYNC = /** @type {const} */ ([
  ['`cloneForVmSync`', 'library, sync'],
  ["`@reflink/reflink`'s `reflinkFileSync` + stamp", '@reflink/reflink, sync'],
  ['`fs.copyFileSync` with FICLONE_FORCE + stamp', 'fs.copyFileSync'],
  ["the library's system calls from C", 'C floor, slot'],
]);
const ASYNC = /** @type {const} */ ([
  ['`cloneForVm`', 'library'],
  ["`@reflink/reflink`'s `reflinkFile` + stamp", '@reflink/reflink'],
  ['`fs.copyFile` with FICLONE_FORCE + stamp', 'fs.copyFile'],
  ['spawned `cp --reflink=always` + stamp', 'cp'],
]);

/** What is done, its measure, the naive way in words, and that contestant. */
const COLD = /** @type {const} */ ([
  ['first clone of a stack that was just published', 'cold-published', 'a spawned `cp --reflink`', 'cp'],
  [
    'first clone of a template that was placed by hand',
    'cold-placed',
    '`openssl dgst` and `cp --reflink`',
    'openssl dgst, cp',
  ],
  [
    'first clone of a size, with its check',
    'cold-size',
    '`cp`, `truncate` and `resize2fs`',
    'cp, truncate, resize2fs',
  ],
  ['space of one clone and one grown clone', 'cold-space', '`cp` and `resize2fs`', 'cp, resize2fs'],
  ['first restore of a snapshot', 'restore-first', 'two `openssl dgst` at once', 'two openssl dgst'],
  ['later restore of a snapshot', 'restore-later', 'a warm clone of as many extents', 'library, warm clone'],
]);

/** @param {Result[]} results */
export function syncTable(results) {
  return waysTable('on the calling thread', SYNC, results);
}

/** @param {Result[]} results */
export function asyncTable(results) {
  return waysTable('asynchronous', ASYNC, results);
}

/**
 * @param {string} title
 * @param {typeof SYNC | typeof ASYNC} ways
 * @param {Result[]} results
 */
function waysTable(title, ways, results) {
  const header = FILESYSTEMS.flatMap(([, name]) => [`${name} p50`, `${name} p99`]);
  const rows = ways.map(([label, way]) => [
    label,
    ...FILESYSTEMS.flatMap(([filesystem]) => {
      const { p50, p99 } = summaryOf(results, 'clone', filesystem, way);
      return [formatNs(p50), p99 === undefined ? '–' : formatNs(p99)];
    }),
  ]);
  return table([title, ...header], rows);
}

/** @param {Result[]} results */
export function coldTable(results) {
  const rows = COLD.map(([what, measure, rivalWords, rival]) => [
    what,
    rivalWords,
    ...FILESYSTEMS.map(([filesystem]) => {
      const ours = summaryOf(results, measure, filesystem, 'library').p50;
      const theirs = summaryOf(results, measure, filesystem, rival).p50;
      return measure === 'cold-space'
        ? `${formatBytes(ours - theirs)} more`
        : `${(ours / theirs).toFixed(2)} ×`;
    }),
  ]);
  return table(['cold', 'against', ...FILESYSTEMS.map(([, name]) => name)], rows);
}

/**
 * @param {Result[]} results
 * @param {string} measure
 * @param {string} filesystem
 * @param {string} way
 */
function summaryOf(results, measure, filesystem, way) {
  const result = results.find((each) => each.measure === measure && each.filesystem === filesystem);
  const summary = result?.rows.find(({ name }) => name === way)?.summary;
  if (summary === undefined) throw new Error(`the run has no ${measure} of ${way} on ${filesystem}`);
  return summary;
}
