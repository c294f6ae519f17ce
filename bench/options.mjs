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
  --at FOLDER        measure on the file system that FOLDER is on, instead of ones of its own; no targets
  --seconds N        take N seconds for the rounds of each measure, however many those are, if it has more than one
  --image-mib N      make the realistic template N MiB in size instead of 2048, with less data in proportion
  --results FOLDER   write the results there instead of to bench/results
`;

/**
 * @typedef {object} Options
 * @property {boolean} quick
 * @property {string[] | undefined} only
 * @property {string[] | undefined} part exactly these measures: how a run starts itself for some of them
 * @property {boolean} list
 * @property {boolean} help
 * @property {string} name
 * @property {string} library folder of the built package
 * @property {string} folder
 * @property {string | undefined} at
 * @property {number | undefined} seconds
 * @property {number} imageMiB of the realistic template
 * @property {string} results
 */

/** @returns {Options} */
export function parseOptions(argv = process.argv.slice(2)) {
  const { values } = parseArgs({
    args: argv,
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      part: { type: 'string' },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      name: { type: 'string' },
      library: { type: 'string' },
      folder: { type: 'string', default: tmpdir() },
      at: { type: 'string' },
      seconds: { type: 'string' },
      'image-mib': { type: 'string', default: '2048' },
      results: { type: 'string', default: new URL('results', import.meta.url).pathname },
    },
  });
  const seconds = values.seconds === undefined ? undefined : Number(values.seconds);
  if (seconds !== undefined && !(seconds > 0))
    throw new Error(`--seconds ${values.seconds}: give a number above 0`);
  const imageMiB = Number(values['image-mib']);
  if (!(Number.isInteger(imageMiB) && imageMiB > 0))
    throw new Error(`--image-mib ${values['image-mib']}: give a whole number above 0`);
  return {
    quick: values.quick,
    only: values.only?.split(',').filter((name) => name !== ''),
    part: values.part?.split(','),
    list: values.list,
    help: values.help,
    name: values.name ?? (values.only !== undefined ? 'partial' : values.quick ? 'quick' : 'full'),
    library: resolve(values.library ?? new URL('..', import.meta.url).pathname),
    folder: resolve(values.folder),
    at: values.at === undefined ? undefined : resolve(values.at),
    seconds,
    imageMiB,
    results: resolve(values.results),
  };
}
