// SHA-256 of a file in the page cache, in time and in memory.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ONE_SAMPLE } from '../alternate.mjs';
import { output } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { hashPeers } from '../peers/hash-peers.mjs';
import { atLeastTimesFaster, atMost } from '../targets.mjs';
import { makeSparseFile } from '../templates.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */

const MiB = 2 ** 20;
const CHILD = new URL('../children/hash-memory.mjs', import.meta.url).pathname;
const sizeBytes = (/** @type {Workspace} */ { quick }) => (quick ? 128 : 1024) * MiB;

/** @type {import('./index.mjs').Measure} */
export const hash = {
  name: 'hash',
  title: 'SHA-256 of a file in the page cache',
  rateUnit: 'GiB/s',
  filesystems: ['xfs'],
  full: { rounds: 30, seconds: 40 },
  quick: { rounds: 3, seconds: 2 },
  turn: ONE_SAMPLE,
  warmUps: 1,
  targets: [
    atLeastTimesFaster('library', 0.95, 'openssl dgst'),
    {
      ...atLeastTimesFaster('library, two files at once', 1.7, 'library'),
      text: 'library, two files at once ≥ 1.7 × the bytes a second of one',
      value: (p50) => {
        const one = p50('library');
        const two = p50('library, two files at once');
        return one === undefined || two === undefined ? undefined : (2 * one) / two;
      },
    },
  ],
  async contestants(workspace) {
    const { hashFile } = workspace.library;
    const [first, second] = await twoFiles(workspace);
    const amount = sizeBytes(workspace) / 2 ** 30;
    const contestants = [
      { name: 'library', does: 'hashFile(file)', amount, sample: () => timeNs(() => hashFile(first)) },
      {
        name: 'library, two files at once',
        does: 'Promise.all of two hashFile, of two files',
        amount: 2 * amount,
        sample: () => timeNs(() => Promise.all([hashFile(first), hashFile(second)])),
      },
      ...hashPeers(first).map((way) => ({ ...way, amount })),
    ];
    return { about: `${formatBytes(sizeBytes(workspace))} of random bytes`, contestants };
  },
};

/** @type {import('./index.mjs').Measure} */
export const hashMemory = {
  name: 'hash-memory',
  title: 'memory that hashing takes: growth of the peak in a process of its own',
  filesystems: ['xfs'],
  unit: 'bytes',
  full: { rounds: 3, seconds: 30 },
  quick: { rounds: 1, seconds: 1 },
  turn: ONE_SAMPLE,
  warmUps: 0,
  targets: [atMost('library', 32 * MiB, formatBytes)],
  async contestants(workspace) {
    const [file] = await twoFiles(workspace);
    const inChild = (/** @type {string} */ way) => async () =>
      Number(await output(process.execPath, [CHILD, workspace.libraryFolder, way, file]));
    return {
      about: formatBytes(sizeBytes(workspace)),
      contestants: [
        { name: 'library', does: 'hashFile(file)', sample: inChild('library') },
        { name: 'node:crypto stream', does: 'createReadStream into createHash', sample: inChild('stream') },
      ],
    };
  },
};

/**
 * @param {Workspace} workspace
 * @returns {Promise<[string, string]>}
 */
async function twoFiles(workspace) {
  const folder = join(workspace.path, 'hashed');
  const files = /** @type {[string, string]} */ ([join(folder, 'a'), join(folder, 'b')]);
  const made = await mkdir(folder, { recursive: true });
  if (made !== undefined) {
    for (const file of files) {
      await makeSparseFile(file, { sizeBytes: sizeBytes(workspace), dataBytes: sizeBytes(workspace) });
    }
  }
  return files;
}
