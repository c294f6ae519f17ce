// Root's scheduler: everything in the API, on the slots of hostile tenants and of others at the same time. A call for a
// tenant may fail with an error of ours; a call for anybody else must do what it is there for; and every call has an
// end. Prints what it saw as JSON.
const { readdirSync, readlinkSync } = require('node:fs');
const { copyFile, mkdir, rm } = require('node:fs/promises');
const { join } = require('node:path');
const library = require('../../dist/index.js');

/**
 * @typedef {{ id: string, owner: { uid: number, gid: number } }} Other
 * @typedef {Other & { own: string }} Tenant
 * @type {{
 *   config: import('../../dist/index.js').RootfsConfig,
 *   repositories: string,
 *   tenants: Tenant[],
 *   others: Other[],
 *   stopped: Other,
 *   jails: string,
 *   source: string,
 *   seed: number,
 *   seconds: number,
 *   grownBytes: number,
 *   deadlineMs: number,
 * }}
 */
const args = JSON.parse(process.argv[2]);
const { config, tenants, others, stopped, jails, source, repositories, seconds, grownBytes, deadlineMs } =
  args;
const { RootfsError, RootfsRegistry } = library;

const TENANT_LANES = 3;
// A file that a tenant gives is as long as it likes, and hashing it takes as long: the scheduler says how long it
// waits.
const PATIENCE_MS = 3000;

const seen = { calls: 0, codes: {}, slowest: {}, faults: [] };
const until = performance.now() + seconds * 1000;
const descriptorsBefore = descriptors();
const registry = new RootfsRegistry(config);
const random = chance(args.seed);
const pick = (choices) => choices[Math.floor(random() * choices.length)];
const fault = (what) => seen.faults.push(what);

/** The result, or the error of ours that it ended with. */
async function call(method, ...parameters) {
  const started = performance.now();
  const what = `${method}(${parameters.map((value) => JSON.stringify(value)).join(', ')})`;
  seen.calls++;
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, deadlineMs, 'late');
  });
  const ended = perform(method, parameters).then(
    (value) => ({ value }),
    (error) => ({ error }),
  );
  const outcome = await Promise.race([ended, late]);
  clearTimeout(timer);
  if (outcome === 'late') {
    fault(`${what} has no end`);
    // Whatever waits behind it would only say the same.
    finish();
  }
  const { value, error } = outcome;
  const code = error === undefined ? 'done' : (error.code ?? error.name);
  const key = `${method} ${code}`;
  seen.codes[key] = (seen.codes[key] ?? 0) + 1;
  seen.slowest[method] = Math.max(seen.slowest[method] ?? 0, Math.round(performance.now() - started));
  const settled = Array.isArray(value) ? value.filter((one) => one.status === 'rejected') : [];
  for (const each of [error, ...settled.map(({ reason }) => reason)])
    if (each !== undefined) judge(what, parameters, each);
  return { what, value, error };
}

function judge(what, parameters, error) {
  if (!(error instanceof RootfsError)) fault(`${what}: not an error of ours: ${error.stack}`);
  else if (isRaw(parameters, error))
    fault(`${what}: a code of the system's, which says nothing to a caller: ${error.stack}`);
}

/** What a tenant does to a slot has codes of ours. Leases and files that a caller names are told as they are. */
function isRaw(parameters, error) {
  if (!/^E[A-Z]+$/.test(error?.code ?? '') || error.code === 'EAGAIN') return false;
  if (parameters.includes(error.path)) return false;
  return !tenants.some(({ own }) => error.path?.startsWith(own));
}

async function perform(method, parameters) {
  if (method in library) return library[method](...parameters);
  if (method !== 'slots' && method !== 'snapshots') return registry[method](...parameters);
  const listed = [];
  for await (const one of registry[method](...parameters)) listed.push(one);
  return listed;
}

/** For what is nobody's business but a bystander's: it must resolve. */
async function must(method, ...parameters) {
  const { what, value, error } = await call(method, ...parameters);
  if (error !== undefined) fault(`${what}, which has to do with no tenant: ${error.stack}`);
  return value;
}

/** The same number of calls whatever the tenant. */
function callsForTenant({ id, owner, own }) {
  const durable = random() < 0.1;
  const options = { writable: true, owner, mode: 0o600, durable };
  const exported = join(own, 'jail/rootfs.ext4');
  const patience = () => AbortSignal.timeout(PATIENCE_MS);
  const name = `snap-${id}`;
  const derived = `${pick(['fork', 'restored'])}-${id}`;
  const pulled = `pulled-${id}`;
  const memory = join(own, 'memory');
  return [
    () => call('cloneForVm', id, 'debian', options),
    () => call('cloneForVm', id, 'debian', options),
    () => call('cloneForVmSync', id, 'debian', { writable: true, owner, mode: 0o600 }),
    () => call('cloneForVmWithSize', id, 'debian', grownBytes, options),
    () =>
      call(
        'cloneMany',
        [id, derived].map((vmId) => ({ vmId, stack: 'debian', options })),
      ),
    () => call('cloneForVm', derived, 'committed', options),
    () => call('forkSlot', id, derived, { owner, durable, refuseInUse: random() < 0.3 }),
    () => call('exportTo', id, exported, pick([{}, { owner, mode: 0o600 }, { durable: true }])),
    () => call('exportTo', id, exported, { owner, mode: 0o600 }),
    () => call('exportTo', id, exported, { owner, mode: 0o600, durable }),
    () => call('snapshotSlot', id, name, { refuseInUse: random() < 0.2 }),
    () => call('snapshotSlot', id, name, { with: [memory], signal: patience() }),
    () => call('verifySnapshot', name, { signal: patience() }),
    () => call('restoreSnapshot', name, derived, { owner, signal: patience() }),
    () =>
      call(
        'restoreMany',
        [name, pulled].map((snapshot) => ({
          snapshot,
          vmId: derived,
          options: { owner, signal: patience() },
        })),
      ),
    () => call('prewarmSnapshot', name, { count: 1, owner, signal: patience() }),
    () => call('removeSnapshot', name),
    () => call('pushSnapshot', name, `${repositories}/snapshot:${id}`, { signal: patience() }),
    () => call('pullSnapshot', `${repositories}/snapshot:${id}`, { name: pulled, signal: patience() }),
    () => call('removeSnapshot', pulled),
    () => call('pushStack', 'committed', `${repositories}/committed:${id}`, { signal: patience() }),
    () => call('pullStack', `${repositories}/committed:${id}`, { name: pulled, replace: true }),
    () => call('inspectReference', `${repositories}/snapshot:${id}`),
    () => call('stack', pick(['committed', pulled])),
    () => call('hashFile', memory, { signal: patience() }),
    () => call('hashFiles', [memory, exported], { signal: patience() }),
    // By a path in its own folder, a tenant would have its caller grow another's disk.
    () => call('resizeExt4Image', join(config.clonesDir, id, 'rootfs.ext4'), grownBytes),
    () => call('commitSlot', id, 'committed', { replace: true }),
    () => call('removeStack', 'committed', { force: random() < 0.5 }),
    () => call('slot', id),
    () => call('slotInUse', id),
    () => call('release', id, { refuseInUse: random() < 0.5, durable }),
    () => call('release', id),
    () => call('release', derived),
    () => call('gc', { keep: others.map((other) => other.id), dryRun: random() < 0.5 }),
  ];
}

const FRESH = 'fresh';

const callsForOthers = [
  async ({ id, owner }) => {
    const clone = await must('cloneForVm', id, 'debian', { writable: true, owner, mode: 0o600 });
    if (clone?.reused === false) fault(`${id} had lost its disk`);
  },
  async () => {
    await must('cloneForVm', FRESH, 'debian', { writable: true });
    await must('release', FRESH);
  },
  async () => {
    await must('cloneForVmWithSize', FRESH, 'debian', grownBytes, { writable: true });
    await must('release', FRESH);
  },
  async ({ id }) => {
    await must('forkSlot', id, FRESH);
    await must('release', FRESH);
  },
  async ({ id }) => {
    const folder = join(jails, id);
    await mkdir(folder, { recursive: true });
    await must('exportTo', id, join(folder, 'rootfs.ext4'));
    await rm(folder, { recursive: true });
  },
  async ({ id }) => {
    await must('snapshotSlot', id, FRESH);
    await must('verifySnapshot', FRESH);
    await must('prewarmSnapshot', FRESH, { count: 1 });
    await must('restoreSnapshot', FRESH, FRESH);
    await must('release', FRESH);
    const [restored] = await must('restoreMany', [{ snapshot: FRESH, vmId: FRESH }]);
    if (restored.status === 'rejected')
      fault(`restoreMany of the snapshot of ${id}: ${restored.reason.stack}`);
    await must('release', FRESH);
    if ((await must('removeSnapshot', FRESH)) === false) fault(`the snapshot of ${id} was gone`);
  },
  async () => {
    await must('commitSlot', stopped.id, FRESH);
    if ((await must('removeStack', FRESH, { force: true })) === false) fault('the stack was gone');
  },
  async () => {
    await must('publishStack', FRESH, source);
    await must('removeStack', FRESH);
  },
  async ({ id }) => {
    const reference = `${repositories}/snapshot:${FRESH}`;
    await must('snapshotSlot', id, FRESH);
    const pushed = await must('pushSnapshot', FRESH, reference);
    await must('removeSnapshot', FRESH);
    const pulled = await must('pullSnapshot', reference, { name: FRESH });
    if (pulled?.digest !== pushed?.digest) fault(`the snapshot of ${id} came back as another one`);
    await must('removeSnapshot', FRESH);
  },
  async () => {
    const reference = `${repositories}/stack:${FRESH}`;
    const pushed = await must('pushStack', 'debian', reference);
    await must('inspectReference', reference);
    const pulled = await must('pullStack', reference, { name: FRESH });
    if (pulled?.sha256 !== pushed?.sha256) fault('the stack came back as another one');
    await must('removeStack', FRESH);
  },
  async () => {
    const copy = join(jails, FRESH);
    await copyFile(source, copy);
    const [before] = await must('hashFiles', [copy]);
    if ((await must('hashFile', source)) !== before) fault('the copy has another digest');
    await must('resizeExt4Image', copy, grownBytes);
    await rm(copy);
  },
  async () => {
    if ((await must('stack', 'debian')) === undefined) fault('there is no stack debian');
  },
  () => must('sealedImages'),
  () => must('drain'),
  async () => {
    const report = await must('recover');
    const ours = [...(report?.tornSlots ?? []), ...(report?.unstamped ?? [])].filter(isOthers);
    if (ours.length > 0) fault(`recover() found ${ours} torn`);
  },
  async () => {
    const found = (await must('slots'))?.map(({ rawId }) => rawId) ?? [];
    for (const { id } of others) if (!found.includes(id)) fault(`${id} is not among the slots: ${found}`);
  },
  async ({ id }) => {
    const report = await must('gc', { keep: [...others, ...tenants].map((one) => one.id) });
    if (report?.released.some(isOthers)) fault(`gc released what ${id} has`);
  },
  () => must('verify', { clones: true }),
  () => must('usage'),
  () => must('stacks'),
  () => must('snapshots'),
  () => must('readySlots'),
  ({ id }) => must('slotInUse', id),
  ({ id }) => must('slot', id),
  () => must('prewarm', 'debian', { count: 2 }),
];

const isOthers = (name) => others.some(({ id }) => id === name);

/** Numbers below `size`: each of them once, in any order, then any of them. */
class Deck {
  #size;
  #left;

  constructor(size) {
    this.#size = size;
    this.#left = Array.from({ length: size }, (_, i) => [random(), i]).sort(([a], [b]) => a - b);
  }

  /** Whether each had its turn. */
  get isThrough() {
    return this.#left.length === 0;
  }

  next() {
    const [, first] = this.#left.pop() ?? [];
    return first ?? Math.floor(random() * this.#size);
  }
}

const hasTime = (deck) => performance.now() < until || !deck.isThrough;

async function main() {
  const forTenants = new Deck(callsForTenant(tenants[0]).length);
  const forOthers = new Deck(callsForOthers.length);
  const tenantLane = async () => {
    while (hasTime(forTenants)) await callsForTenant(pick(tenants))[forTenants.next()]();
  };
  const otherLane = async () => {
    while (hasTime(forOthers)) await callsForOthers[forOthers.next()](pick(others));
  };
  await Promise.all([...Array.from({ length: TENANT_LANES }, tenantLane), otherLane()]);
  await must('drain');
  await must('close');
  const left = descriptors().filter((path) => path.startsWith('/') && !descriptorsBefore.includes(path));
  if (left.length > 0) fault(`open after close(): ${left.join(', ')}`);
  finish();
}

function finish() {
  // Longer than what a pipe holds: to be read before the end.
  process.stdout.write(JSON.stringify(seen), () => process.exit(0));
}

/** The paths of all that is open. */
function descriptors() {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // that of the folder itself
    }
  });
}

/** xorshift32 */
function chance(seed) {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

main();
