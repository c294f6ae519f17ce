// npm run soak -- [--minutes N] [--on xfs|btrfs|ext4]: processes that clone, grow, take from the pool and release at
// full speed while a killer picks them off at random. At the end everything is released, and memory, descriptors, loop
// devices and free blocks are where they were. Latencies are reported, never judged.
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { readdir, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { output } from '../../bench/command.mjs';
import { enterNamespace, mountNew } from '../../bench/filesystems.mjs';
import { RootfsRegistry } from '../../dist/index.mjs';
import { formatLatencies } from './latencies.mjs';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '10' }, on: { type: 'string', default: 'xfs' } },
});
const MINUTES = Number(values.minutes);
const VICTIMS = 3;
const IDS = Array.from({ length: 40 }, (_, i) => `vm-${i}`);
const TEMPLATE_BYTES = 64 * 2 ** 20;
const GROWN_BYTES = 96 * 2 ** 20;
// Warm enough that what stays for good (sealed images, code) is there.
const WARM_UP_CLONES = 500;

const folder = enterNamespace(tmpdir());
const { path } = await mountNew(values.on, folder);
const config = { templateDir: join(path, 'templates'), clonesDir: join(path, 'clones') };
mkdirSync(join(config.templateDir, 'debian'), { recursive: true });
await output('mke2fs', [
  ...['-q', '-F', '-t', 'ext4', '-d', resolve('src')],
  ...[join(config.templateDir, 'debian/rootfs.ext4'), `${TEMPLATE_BYTES / 1024}K`],
]);

const registry = new RootfsRegistry(config);
await warmUp();
const before = await resources();

const problems = [];
let ending = false;
let kills = 0;
const survivor = start(true);
const victims = Array.from({ length: VICTIMS }, () => start(false));
const until = performance.now() + MINUTES * 60_000;
// A problem is not made better by going on.
while (performance.now() < until && problems.length === 0) {
  await sleep(Math.min(100 + 1500 * Math.random(), until - performance.now()));
  const index = Math.floor(Math.random() * VICTIMS);
  victims[index].child.kill('SIGKILL');
  await victims[index].ended;
  kills++;
  victims[index] = start(false);
}
ending = true;
for (const { child } of [survivor, ...victims]) child.stdin.end();
const [seen] = await Promise.all([survivor, ...victims].map(({ ended }) => ended));

await settle();
const after = await resources();
report();

/** @param {boolean} survives */
function start(survives) {
  const args = { config, ids: IDS, grownBytes: GROWN_BYTES, minutes: MINUTES, survives };
  const worker = resolve('test/soak/worker.mjs');
  const child = spawn(process.execPath, [worker, JSON.stringify(args)], { stdio: ['pipe', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  const ended = new Promise((resolve) => {
    child.on('close', (code, signal) => {
      if (stderr !== '') problems.push(stderr.slice(0, 2000));
      const killed = signal === 'SIGKILL' && !survives && !ending;
      if (!killed && code !== 0) problems.push(`a process ended with ${signal ?? `status ${code}`}`);
      resolve(stdout === '' ? undefined : JSON.parse(stdout));
    });
  });
  return { child, ended };
}

async function warmUp() {
  await registry.prewarm('debian', { count: 4 });
  await registry.cloneForVmWithSize('vm-0', 'debian', GROWN_BYTES, { writable: true });
  for (let i = 0; i < WARM_UP_CLONES; i++) {
    const id = IDS[i % IDS.length];
    await registry.release(id);
    await registry.cloneForVm(id, 'debian', { writable: true });
  }
  await settle();
}

/** Nothing is left but templates, sealed images and the pool, whose size is the same before and after. */
async function settle() {
  for (const id of IDS) await registry.release(id);
  // Programs that killed processes had started hold their files until they end.
  for (let i = 0; i < 50 && (await registry.recover()).stagingRemoved > 0; i++) await sleep(100);
  const pool = join(config.clonesDir, '.microvm-rootfs/pool');
  await registry.prewarm('debian', { count: 4 });
  const surplus = (await readdir(pool)).length - 4;
  for (let i = 0; i < surplus; i++) await registry.cloneForVm(`surplus-${i}`, 'debian', { writable: true });
  for (let i = 0; i < surplus; i++) await registry.release(`surplus-${i}`);
  await registry.drain();
  await output('sync', ['-f', path]);
}

async function resources() {
  global.gc?.();
  const { bfree, blocks } = await statfs(path);
  const state = join(config.clonesDir, '.microvm-rootfs');
  return {
    freeBlocks: bfree,
    blocks,
    descriptors: readdirSync('/proc/self/fd').length,
    loopDevices: loopDevices(),
    slots: (await readdir(config.clonesDir)).filter((name) => !name.startsWith('.')).length,
    staging: (await readdir(join(state, 'staging'))).length,
    trash: (await readdir(join(state, 'trash'))).length,
  };
}

/** Those on files of this run: others may be at work on the machine. */
function loopDevices() {
  return readdirSync('/sys/block').filter((name) => {
    try {
      return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').startsWith(folder);
    } catch {
      return false; // not in use, or no loop device
    }
  }).length;
}

function movedShare() {
  return Math.abs(after.freeBlocks - before.freeBlocks) / before.freeBlocks;
}

function report() {
  const moved = movedShare();
  if (moved > 0.01) problems.push(`free blocks moved by ${(moved * 100).toFixed(2)} %`);
  for (const what of /** @type {const} */ (['descriptors', 'loopDevices', 'slots', 'staging', 'trash'])) {
    if (after[what] > before[what]) problems.push(`${what}: ${before[what]} before, ${after[what]} after`);
  }
  if (seen === undefined) problems.push('the process that should have survived has told nothing');
  else describe(seen);
  for (const problem of problems) console.error(`PROBLEM: ${problem}`);
  console.log(problems.length === 0 ? 'no problems' : `${problems.length} problems`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

function describe({ calls, outcomes, samples, latencies }) {
  const first = samples[Math.floor(samples.length / 10)];
  const last = samples.at(-1);
  if (last.descriptors > first.descriptors + 16)
    problems.push(`descriptors of the survivor: ${first.descriptors}, then ${last.descriptors}`);
  const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  console.log(`${MINUTES} minutes on ${values.on}, ${kills} processes killed`);
  console.log(`the process that survived made ${calls} calls: ${JSON.stringify(outcomes)}`);
  console.log(`its memory       ${mebibytes(first.rss)} after a tenth, ${mebibytes(last.rss)} at the end`);
  console.log(`its descriptors  ${first.descriptors} after a tenth, ${last.descriptors} at the end`);
  console.log(
    `free blocks      ${before.freeBlocks} before, ${after.freeBlocks} after (${(movedShare() * 100).toFixed(3)} %)`,
  );
  console.log(`loop devices     ${before.loopDevices} before, ${after.loopDevices} after`);
  console.log(`slots, staging, trash  ${after.slots}, ${after.staging}, ${after.trash} after`);
  console.log(formatLatencies(latencies));
}

await registry.close();
