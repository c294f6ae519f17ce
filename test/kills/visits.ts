// One visit of one point of an operation: the system call is killed or fails, then all is looked at.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { RootfsRegistry } from '../../src/index.js';
import { CHUNK_LIMIT } from '../../src/remote/chunk-list.js';
import { garbage, leftovers, slotFaults, slotsIn } from './aftermath.js';
import type { Artifacts } from './artifacts.js';
import { type Injector, injectorFor } from './injectors.js';
import type { Call, Operation } from './operations.js';
import { fetchedBytes, partialFaults } from './partial-pulls.js';
import { type Performed, Performer, type Threads, type ToldError } from './performer.js';
import { type Caller, headOf, type Point, pointsOf } from './points.js';
import { type Masters, Site } from './site.js';
import type { Trace } from './strace.js';
import { thingFaults, thingsIn, unlike } from './things.js';

/** What happened at a point. Without faults all is as it should be. */
export interface Visit {
  readonly point: Point;
  readonly what: string;
  /** The call was made and was killed or failed. */
  readonly reached: boolean;
  readonly outcome: string;
  readonly faults: readonly string[];
}

/** What becomes of one call. */
export interface Fault {
  readonly point: Point;
  readonly what: string;
}

/** What was visited of one operation. */
export interface Surveyed {
  /** How many visits there could be. */
  readonly points: number;
  readonly visits: readonly Visit[];
}

/** Where points of one operation are visited. */
export interface Ground {
  readonly folder: string;
  readonly masters: Masters;
  /** Only of operations that pull and push. */
  readonly artifacts: Artifacts | undefined;
  readonly operation: Operation;
}

let sites = 0;

export async function newSite({ folder, masters, artifacts, operation }: Ground): Promise<Site> {
  const root = join(folder, `point-${sites++}`);
  await mkdir(root);
  const site = await Site.make(root, masters, operation.template, artifacts);
  await operation.given?.(site);
  return site;
}

/**
 * The calls that these make when the operation is performed undisturbed, which must lead to nothing that looks like a
 * fault.
 */
export async function dryRun(
  ground: Ground,
  performer: Performer,
  callers: readonly Caller[] = ['pool', 'process'],
): Promise<Point[]> {
  const { operation } = ground;
  const site = await newSite(ground);
  const injectors = await Promise.all(callers.map((caller) => injectorFor(caller, site)));
  const config = Object.assign({}, ...injectors.map((injector) => injector.config));
  const threads = await performer.prepare(
    config,
    operation.before.map((call) => site.placed(call)),
  );
  await operation.meanwhile?.(site);
  const traces: Trace[] = [];
  for (const injector of injectors) traces.push(await injector.arm(threads));
  const faults = failure(await performer.perform(site.placed(operation.call)));
  const points: Point[] = [];
  for (const [i, trace] of traces.entries())
    points.push(...pointsOf(callers[i] as Caller, await trace.end(), site.root));
  faults.push(...(await leftovers(site)).map((path) => `left behind: ${path}`));
  await performer.close();
  faults.push(...(await slotFaults(site, madeBy(operation.call), [])), ...(await site.templateFaults()));
  faults.push(...(await thingFaults(site)), ...(await unlike(site, operation.leaves ?? {})));
  faults.push(...(await garbage(site)));
  await site.remove();
  if (faults.length > 0) throw new Error(`undisturbed, "${operation.name}" is wrong: ${faults.join('; ')}`);
  return points;
}

/** A visit that cannot be ended tells where it was, and the others go on. */
export async function orFaulty({ point, what }: Fault, visit: Promise<Visit>): Promise<Visit> {
  try {
    return await visit;
  } catch (error) {
    const stack = error instanceof Error ? error.stack : error;
    return {
      point,
      what,
      reached: false,
      outcome: 'broken off',
      faults: [`the visit was broken off: ${stack}`],
    };
  }
}

/** Kills the process at a point. `recoverFirst`: before the same call is made again, rather than after it. */
export async function kill(ground: Ground, point: Point, recoverFirst: boolean): Promise<Visit> {
  const { operation } = ground;
  const performer = Performer.start();
  const site = await newSite(ground);
  const injector = await injectorFor(point.caller, site, { ...point, what: 'signal=SIGKILL' });
  const threads = await performer.prepare(
    injector.config,
    operation.before.map((call) => site.placed(call)),
  );
  const { faults, killed, lines } = await killedBy(operation, performer, site, injector, threads);
  if (killed) faults.push(...(await afterwards(site, operation, recoverFirst)));
  await site.remove();
  return { point, what: 'SIGKILL', outcome: 'killed', reached: killed && sameCall(lines, point), faults };
}

/** Performs the call, in the course of which the process is to die; and looks at what is left. */
export async function killedBy(
  operation: Operation,
  performer: Performer,
  site: Site,
  injector: Injector,
  threads: Threads,
): Promise<{ faults: string[]; killed: boolean; lines: string[] }> {
  const before = [...(await slotsIn(site)).keys()];
  await operation.meanwhile?.(site);
  const trace = await injector.arm(threads);
  const performed = await performer.perform(site.placed(operation.call));
  const lines = await trace.end();
  if (performed !== undefined) {
    await performer.kill();
    return { faults: [], killed: false, lines };
  }
  const takes = operation.takes ?? [];
  const kept = before.filter((name) => !takes.includes(name));
  const faults = [...(await slotFaults(site, kept, takes)), ...(await site.templateFaults())];
  faults.push(...(await thingFaults(site)), ...(await partialFaults(site)));
  return { faults, killed: (await performer.gone) === 'SIGKILL', lines };
}

/** A process for any number of failures, one after another. */
export interface Lane {
  performer: Performer | undefined;
}

// Which of its writes wake the main thread is not the same each time.
const TRIES = 8;

/** Fails the call at a point, in the lane's process as long as that lives. */
export async function fail(ground: Ground, lane: Lane, fault: Fault): Promise<Visit> {
  for (let tries = 1; ; tries++) {
    lane.performer ??= Performer.start();
    try {
      const visit = await failIn(ground, lane.performer, fault);
      if (visit !== 'woke') return visit;
    } catch (error) {
      await endOf(lane);
      throw error;
    }
    await endOf(lane);
    if (tries === TRIES) return { ...fault, reached: false, outcome: 'elsewhere', faults: [] };
  }
}

async function endOf(lane: Lane): Promise<void> {
  await lane.performer?.kill();
  lane.performer = undefined;
}

// By which libuv's threads tell the main one that work is done. libuv ends the process if that fails.
const WAKES = /^write\(\d+<anon_inode:\[eventfd\]>.*INJECTED/;

async function failIn(ground: Ground, performer: Performer, { point, what }: Fault): Promise<Visit | 'woke'> {
  const { operation } = ground;
  const { takes = [] } = operation;
  const site = await newSite(ground);
  const call = site.placed(operation.call);
  const injector = await injectorFor(point.caller, site, { ...point, what });
  const threads = await performer.prepare(
    injector.config,
    operation.before.map((call) => site.placed(call)),
  );
  await operation.meanwhile?.(site);
  const before = await slotsIn(site);
  const thingsBefore = await thingsIn(site);
  const trace = await injector.arm(threads);
  const performed = await performer.perform(call);
  const lines = await trace.end();
  if (lines.some((line) => WAKES.test(line))) {
    await performer.kill();
    await site.remove();
    return 'woke';
  }
  const { errors, made } = resultsOf(call, performed);
  const warnings = (performed?.warnings ?? []).map((warning) => warning.split(':', 1)[0] as string);
  const faults = performed === undefined ? ['the process ended'] : [];
  for (const error of errors) faults.push(...untyped(error, what, call, point));
  // What could not be removed stays for a while, but not for as long as the process lives. What others left is not its
  // own.
  const excused = point.removes || warnings.includes('MICROVM_ROOTFS_SWEEP') || call.method === 'recover';
  if (!excused) faults.push(...(await leftovers(site)).map((path) => `left behind: ${path}`));
  if (errors.length > 0 && call.method !== 'recover') {
    const changed = mayHaveChanged(operation, point);
    const slots = [...made, ...mayBeGrown(call, before), ...changed];
    faults.push(...differences('slot ', before, await slotsIn(site), slots));
    faults.push(...differences('', thingsBefore, await thingsIn(site), changed));
  }
  if (call.method === 'gc' && isOfOneOf(takes, point)) faults.push(...(await uncollected(site, takes)));
  const kept = [...before.keys()].filter((name) => !takes.includes(name));
  faults.push(...(await slotFaults(site, [...kept, ...made], takes)), ...(await site.templateFaults()));
  faults.push(...(await thingFaults(site)), ...(await partialFaults(site)));
  const done = (await undone(site, operation)).length === 0;
  // The same process can do it as soon as the disk is well again: nothing that failed is remembered.
  for (const next of [call, RECOVER]) {
    const again = failure(await performer.perform(next), done ? operation.once : undefined);
    faults.push(...again.map((fault) => `again, ${next.method}: ${fault}`));
  }
  faults.push(
    ...(await leftovers(site)).map((path) => `left behind by recover() of the same process: ${path}`),
  );
  await performer.close();
  faults.push(...(await afterwards(site, operation, false)));
  await site.remove();
  const outcome = [errors[0] === undefined ? 'success' : errors[0].code, ...warnings].join(' ');
  return { point, what, reached: sameCall(lines, point), outcome, faults };
}

/** What failed of a call, and the slots that it made. */
function resultsOf(call: Call, performed: Performed | undefined): { errors: ToldError[]; made: string[] } {
  const { error, value } = performed?.outcome ?? {};
  if (error !== undefined) return { errors: [error], made: [] };
  const slots = madeBy(call);
  if (!Array.isArray(value)) return { errors: [], made: slots };
  const batch = value as { error?: ToldError }[];
  return {
    errors: batch.flatMap(({ error }) => error ?? []),
    made: slots.filter((_, i) => batch[i]?.error === undefined),
  };
}

const RECOVER: Call = { method: 'recover', args: [] };

const TAKES_AWAY = ['release', 'gc', 'removeStack', 'removeSnapshot'];

/** What may be there, or gone, though the call has failed: whole in any case, which is looked at for everything. */
function mayHaveChanged({ call, takes = [], leaves = {} }: Operation, { published }: Point): string[] {
  if (TAKES_AWAY.includes(call.method)) return [...takes, ...Object.keys(leaves)];
  return published ? [...madeBy(call), ...Object.keys(leaves)] : [];
}

function isOfOneOf(slots: readonly string[], { line }: Point): boolean {
  return slots.some((name) => line.includes(`/${name}`) || line.includes(`"${name}"`));
}

/** One slot that cannot be looked at or taken away does not keep the others. */
async function uncollected(site: Site, takes: readonly string[]): Promise<string[]> {
  const slots = await slotsIn(site);
  const left = takes.filter((name) => slots.has(name));
  return left.length < takes.length ? [] : [`gc left ${left.join(' and ')}, though only one call failed`];
}

/** What the call has yet to do. */
async function undone(site: Site, { call, leaves = {} }: Operation): Promise<string[]> {
  const slots = await slotsIn(site);
  const missing = madeBy(call).filter((name) => !slots.has(name));
  return [...missing.map((name) => `slot ${name} should be there`), ...(await unlike(site, leaves))];
}

/**
 * What a durable call that fails may all the same have grown: a slot that was there. That it is whole is looked at for
 * every slot.
 */
function mayBeGrown(call: Call, before: ReadonlyMap<string, string>): string[] {
  const durable = call.args.some((arg) => (arg as { durable?: boolean }).durable === true);
  return durable ? madeBy(call).filter((name) => before.has(name)) : [];
}

/** A process that knows nothing of what happened makes the same call, and puts the folder in order. */
export async function afterwards(site: Site, operation: Operation, recoverFirst: boolean): Promise<string[]> {
  const { takes = [], once } = operation;
  const call = site.placed(operation.call);
  const registry = site.newRegistry();
  const faults: string[] = [];
  try {
    if (recoverFirst) await recover(registry, takes, faults);
    // On the calling thread only what is warm can be cloned.
    const method = call.method === 'cloneForVmSync' ? 'cloneForVm' : call.method;
    const done = (await undone(site, operation)).length === 0;
    const fetched = await fetchedBytes(site);
    const result = await (registry[method] as (...args: readonly unknown[]) => Promise<unknown>)(
      ...call.args,
    ).catch((error) => {
      if (!done || error.code !== once) throw error;
    });
    const { reusedBytes = 0 } = (result ?? {}) as { reusedBytes?: number };
    if (reusedBytes < fetched - CHUNK_LIMIT)
      faults.push(`of ${fetched} bytes that were fetched before, only ${reusedBytes} were used again`);
    await recover(registry, takes, faults);
    await registry.drain();
    faults.push(...(await leftovers(site)).map((path) => `left behind by recover(): ${path}`));
  } catch (error) {
    faults.push(`a new process fails: ${error}`);
  }
  await registry.close();
  faults.push(...(await slotFaults(site, madeBy(call), [])), ...(await site.templateFaults()));
  faults.push(...(await thingFaults(site)), ...(await undone(site, operation)));
  return [...faults, ...(await garbage(site))];
}

async function recover(registry: RootfsRegistry, takes: readonly string[], faults: string[]): Promise<void> {
  const { tornSlots, tornInUse } = await registry.recover();
  for (const slot of [...tornSlots, ...tornInUse]) {
    if (!takes.includes(slot)) faults.push(`recover() found slot ${slot} torn`);
  }
}

/** Folder names of the slots that a call makes. */
function madeBy({ method, args }: Call): string[] {
  const safe = (vmId: unknown) => String(vmId).replace('/', '_');
  if (method === 'cloneForVm' || method === 'cloneForVmSync') return [safe(args[0])];
  if (method === 'forkSlot' || method === 'restoreSnapshot') return [safe(args[1])];
  if (method === 'cloneMany') return (args[0] as { vmId: string }[]).map(({ vmId }) => safe(vmId));
  return [];
}

function failure(performed: Performed | undefined, once?: string): string[] {
  if (performed === undefined) return ['the process ended'];
  const { error, value } = performed.outcome;
  const errors = Array.isArray(value) ? value.flatMap((result) => result.error ?? []) : [];
  return [...(error === undefined ? [] : [error]), ...errors]
    .filter(({ code }) => once === undefined || code !== once)
    .map(({ stack }) => `it fails: ${stack}`);
}

// ESTALE: what was just made cannot be believed; the call says that it may be made again.
const DOCUMENTED = new Set([
  'RESIZE_FAILED',
  'E2FSCK_FAILED',
  'TEMPLATE_CHANGED',
  'SLOT_TORN',
  'SLOT_BUSY',
  'ESTALE',
]);

function untyped(
  { typed, code = '', message, stack }: ToldError,
  what: string,
  { method }: Call,
  { caller }: Point,
): string[] {
  if (!typed) return [`not an error of ours: ${stack}`];
  const injected = what.replace('error=', '');
  // The addon makes an interrupted call again, and so does Node, but for read(); other programs are as they are.
  const ours = caller === 'pool' || caller === 'process';
  if (injected === 'EINTR' && ours && !message.includes('read'))
    return [`an interrupted call is not made again: ${message}`];
  // What came out short would be copied, which is not for the calling thread.
  if (method === 'cloneForVmSync' && what === 'retval=0' && code === 'NOT_WARM') return [];
  return code === injected || DOCUMENTED.has(code) ? [] : [`${what} became ${code}: ${message}`];
}

function differences(
  kind: string,
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
  made: readonly string[],
): string[] {
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((name) => before.get(name) !== after.get(name) && !made.includes(name))
    .map(
      (name) =>
        `failed, and yet ${kind}${name} was ${before.get(name) ?? 'absent'}, is ${after.get(name) ?? 'absent'}`,
    );
}

/**
 * Whether the call that was killed or failed, the last of its name or the one marked, is the one that the dry run
 * showed.
 */
function sameCall(lines: readonly string[], { line }: Point): boolean {
  const calls = lines.filter((other) => /^\w+\(/.test(other));
  const hit = calls.find((other) => other.includes('INJECTED')) ?? calls.at(-1);
  return hit !== undefined && headOf(hit) === headOf(line);
}
