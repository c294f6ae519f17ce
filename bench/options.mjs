// The command line of the benchmark.
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';

export const USAGE = `usage: npm run bench -- [options]      (as root: it mounts file systems of its own)

  --quick            a few minutes: fewer rounds, smaller files, the slowest measures left out
  --only NAMES       these measures alone, separated by commas; a name stands for all that begin with it
  --list             print the measures and their targets, and stop
  --name NAME        write bench/results/NAME.json (default: full, quick or partial)
  --library FOLDER   measure the library that lies built in FOLDER instead of this one
  --folder FOLDER    where the file systems' image files go (default: the system's temporary folder)
`;

/**
 * @typedef {object} Options
 * @property {boolean} quick
 * @property {string[] | undefined} only
 * @property {boolean} list
 * @property {boolean} help
 * @property {string} name
 * @property {string} library folder of the built package
 * @property {string} folder
 */

/** @returns {Options} */
export function parseOptions(argv = process.argv.slice(2)) {
  const { values } = parseArgs({
    args: argv,
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      name: { type: 'string' },
      library: { type: 'string' },
      folder: { type: 'string', default: tmpdir() },
    },
  });
  return {
    quick: values.quick,
    only: values.only?.split(',').filter((name) => name !== ''),
    list: values.list,
    help: values.help,
    name: values.name ?? (values.only !== undefined ? 'partial' : values.quick ? 'quick' : 'full'),
    library: resolve(values.library ?? new URL('..', import.meta.url).pathname),
    folder: resolve(values.folder),
  };
}
