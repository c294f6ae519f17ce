// Runs measures apart, each in a process of its own and on file systems of its own: a heap or a disk that one leaves
// behind would be the next one's burden, and programs that are compared start anew for each sample. Those that share a
// set-up of minutes run together.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { INSIDE } from './filesystems.mjs';

/** @typedef {import('./measures/index.mjs').Measure} Measure */
/** @typedef {import('./report.mjs').Result} Result */

const PROGRAM = new URL('run.mjs', import.meta.url).pathname;
const NAME = 'part';

/**
 * @param {readonly Measure[]} measures
 * @returns {Measure[][]}
 */
export function partsOf(measures) {
  /** @type {Map<string, Measure[]>} */
  const parts = new Map();
  for (const measure of measures) {
    const key = measure.together ?? measure.name;
    parts.set(key, [...(parts.get(key) ?? []), measure]);
  }
  return [...parts.values()];
}

/**
 * @param {readonly Measure[]} part
 * @param {string} parent where to put its files
 * @returns {Result[]}
 */
export function runPart(part, parent) {
  const folder = join(parent, 'part');
  mkdirSync(folder);
  const names = part.map(({ name }) => name).join(',');
  const args = [...process.argv.slice(2), '--part', names, '--name', NAME, '--results', folder];
  const { status, signal, error } = spawnSync(process.execPath, [...process.execArgv, PROGRAM, ...args], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: folder },
  });
  if (error !== undefined) throw error;
  // It has said what failed, and the others can still be measured.
  if (status !== 0) process.exitCode = 1;
  if (signal !== null) throw new Error(`${names} ended by ${signal}`);
  const { results } = JSON.parse(readFileSync(join(folder, `${NAME}.json`), 'utf8'));
  rmSync(folder, { recursive: true });
  return results;
}
