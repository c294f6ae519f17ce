// The benchmark: this library, what people use instead, and the floor in C, side by side. See docs/benchmarks.md.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { alternate } from './alternate.mjs';
import { partsOf, runPart } from './apart.mjs';
import { enterNamespace, FILESYSTEMS, mountNew, newFolderIn } from './filesystems.mjs';
import { compileFloor } from './floor-programs.mjs';
import { describeMachine } from './machine.mjs';
import { MEASURES, selectMeasures } from './measures/index.mjs';
import { parseOptions, USAGE } from './options.mjs';
import { formatResult, formatTargets } from './report.mjs';
import { judge } from './targets.mjs';
import { Workspace } from './workspace.mjs';

/** @typedef {import('./measures/index.mjs').Measure} Measure */
/** @typedef {import('./report.mjs').Result} Result */

const SHORT_TURN = { thrownAway: 1, counted: 4 };
const WARM_UPS = 1000;

const options = parseOptions();
const { part } = options;
const measures =
  part === undefined ? selectMeasures(options.only) : MEASURES.filter(({ name }) => part.includes(name));
if (options.help) {
  console.log(USAGE);
} else if (options.list) {
  for (const { name, title, filesystems, targets } of measures) {
    console.log(`${name} (${filesystems.join(', ')}): ${title}`);
    for (const { text, on } of targets)
      console.log(`    ${text}${on === undefined ? '' : ` on ${on.join(', ')}`}`);
  }
} else {
  if (!existsSync(join(options.library, 'dist/index.mjs'))) {
    throw new Error(`${options.library} is not built: npm run build`);
  }
  await measureAll(enterNamespace(options.folder));
}

/** @param {string} folder */
async function measureAll(folder) {
  const startedAt = new Date().toISOString();
  const machine = await describeMachine(options.library);
  if (part === undefined)
    for (const [what, is] of Object.entries(machine)) console.log(`${what.padEnd(16)}  ${is}`);
  /** @type {Result[]} */
  const results = [];
  // A run takes most of an hour, and may be ended before.
  const save = (/** @type {Result[]} */ ...more) => {
    results.push(...more);
    return write({ startedAt, quick: options.quick, machine, results: inOrder(results) });
  };
  const parts = partsOf(measures);
  if (parts.length === 1 || options.at !== undefined) await measureHere(folder, save);
  else for (const each of parts) save(...runPart(each, folder));
  const written = save();
  if (part !== undefined) return;
  if (options.at === undefined) {
    console.log(formatTargets(inOrder(results)));
    const leftOut = measures.flatMap((measure) =>
      measure.filesystems.filter((on) => !runsOn(measure, on)).map((on) => `${measure.name} on ${on}`),
    );
    if (leftOut.length > 0) console.log(`\nLeft out of a quick run: ${leftOut.join(', ')}`);
  }
  console.log(`\nWritten to ${written}`);
}

/**
 * @param {string} folder
 * @param {(result: Result) => void} save
 */
async function measureHere(folder, save) {
  const library = await import(join(options.library, 'dist/index.mjs'));
  const floor = await compileFloor(join(folder, 'floor'));
  for (const { filesystem, here, enter } of placesToMeasure()) {
    const { quick, imageMiB, library: libraryFolder } = options;
    const place = await enter(folder);
    const parts = { filesystem, place, scratch: folder, quick, imageMiB, library, libraryFolder, floor };
    const workspace = new Workspace(parts);
    for (const measure of here) {
      const result = await measureOne(measure, workspace);
      save(result);
      console.log(formatResult(result));
      // Never for the numbers' sake.
      if (result.rows.some(({ failed }) => failed !== undefined)) process.exitCode = 1;
    }
    await workspace.end();
  }
}

/**
 * By file system.
 * @param {Result[]} results
 */
function inOrder(results) {
  const places = placesToMeasure().map(({ filesystem }) => filesystem);
  return places.flatMap((place) => results.filter(({ filesystem }) => filesystem === place));
}

/**
 * @typedef {object} PlaceToMeasure
 * @property {string} filesystem
 * @property {Measure[]} here
 * @property {(folder: string) => Promise<import('./filesystems.mjs').Place>} enter
 */

/** @returns {PlaceToMeasure[]} */
function placesToMeasure() {
  const { at } = options;
  if (at !== undefined) {
    const here = measures.filter((measure) => effortOf(measure) !== undefined);
    return [{ filesystem: at, here, enter: () => newFolderIn(at) }];
  }
  return FILESYSTEMS.map((filesystem) => ({
    filesystem,
    here: measures.filter((measure) => runsOn(measure, filesystem)),
    enter: (/** @type {string} */ folder) => mountNew(filesystem, folder),
  })).filter(({ here }) => here.length > 0);
}

/**
 * @param {Measure} measure
 * @param {import('./filesystems.mjs').Filesystem} filesystem
 */
function runsOn(measure, filesystem) {
  const effort = effortOf(measure);
  return effort !== undefined && (effort.on ?? measure.filesystems).includes(filesystem);
}

/** @param {Measure} measure */
function effortOf(measure) {
  return options.quick ? measure.quick : measure.full;
}

/**
 * @param {Measure} measure
 * @param {Workspace} workspace
 * @returns {Promise<Result>}
 */
async function measureOne(measure, workspace) {
  const {
    name,
    title,
    unit = 'ns',
    rateUnit,
    targets,
    turn = SHORT_TURN,
    warmUps = WARM_UPS,
    cleanEvery = 20,
    leastRounds = 3,
  } = measure;
  const { filesystem } = workspace;
  const effort = /** @type {import('./measures/index.mjs').Effort} */ (effortOf(measure));
  const { rounds, seconds } =
    options.seconds === undefined || effort.rounds === 1
      ? effort
      : { rounds: Number.POSITIVE_INFINITY, seconds: options.seconds };
  const start = performance.now();
  const { about, contestants } = await measure.contestants(workspace);
  await workspace.settle();
  const rows = await alternate(contestants, {
    rounds,
    seconds,
    leastRounds: options.quick ? 1 : leastRounds,
    turn,
    warmUps,
    warmUpSeconds: options.seconds === undefined ? (options.quick ? 0.15 : 3) : options.seconds / 10,
    cleanEvery,
  });
  const tookSeconds = Math.round((performance.now() - start) / 100) / 10;
  const judged = targets
    .filter(
      ({ on }) => options.at === undefined && (on === undefined || on.some((name) => name === filesystem)),
    )
    .map((target) => judge(target, rows));
  return {
    tookSeconds,
    measure: name,
    title,
    filesystem,
    about,
    unit,
    ...(rateUnit && { rateUnit }),
    rows,
    targets: judged,
  };
}

/**
 * @param {object} report
 * @returns {string} the file
 */
function write(report) {
  mkdirSync(options.results, { recursive: true });
  const path = join(options.results, `${options.name}.json`);
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
  return path;
}
