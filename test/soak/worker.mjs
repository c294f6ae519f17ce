// One process of the soak. Runs until its input ends, then prints what it saw as JSON.
import { readdirSync } from 'node:fs';
import { RootfsRegistry } from '../../dist/index.mjs';
import { LatencyRecorder } from './latencies.mjs';

const { config, ids, grownBytes, minutes } = JSON.parse(process.argv[2]);
// What other processes, also killed ones, may cause.
const ALLOWED = ['SLOT_IN_USE', 'SLOT_BUSY'];

const registry = new RootfsRegistry(config);
const recorder = new LatencyRecorder(minutes);
const outcomes = {};
const samples = [];
let calls = 0;
let ended = false;
process.stdin.on('end', () => {
  ended = true;
});
process.stdin.resume();

function sample() {
  samples.push({ rss: process.memoryUsage.rss(), descriptors: readdirSync('/proc/self/fd').length });
}
const sampling = setInterval(sample, Math.max(100, minutes * 100));

async function call(kind, work) {
  const startedAt = performance.now();
  calls++;
  let outcome = kind;
  try {
    const result = await work();
    if (result?.pooled) outcome = 'pooled';
    else if (result?.reused) outcome = `${kind}, reused`;
  } catch (error) {
    outcome = error.code;
    if (!ALLOWED.includes(error.code)) throw error;
  }
  recorder.record(outcome, startedAt);
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
}

const writable = { writable: true };
await registry.prewarm('debian', { count: 4 });
while (!ended) {
  const id = ids[Math.floor(Math.random() * ids.length)];
  const dice = Math.random();
  if (dice < 0.48) await call('clone', () => registry.cloneForVm(id, 'debian', writable));
  else if (dice < 0.5)
    await call('grow', () => registry.cloneForVmWithSize(id, 'debian', grownBytes, writable));
  else if (dice < 0.999) await call('release', () => registry.release(id));
  else await call('recover', () => registry.recover());
}
sample();
clearInterval(sampling);
await registry.close();
console.log(JSON.stringify({ calls, outcomes, samples, latencies: recorder.latencies }));
