// Hostile tenants beside root's scheduler: see tenant.c for what they do and scheduler.cjs for what it does meanwhile.
// Nobody else is harmed, and no call is without an end.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmod, chown, copyFile, lstat, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import * as library from '../../src/index.js';
import { isStateEntry, STATE_FOLDER } from '../../src/system/state-folder.js';
import { exitOf, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256Of, snapshot, walk } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const SECONDS = Number(process.env.TENANTS_SECONDS ?? 6);
const SEED = Number(process.env.TENANTS_SEED ?? Math.floor(Math.random() * 2 ** 31));
// Nothing that is asked for takes a second here.
const DEADLINE_MS = 40_000;

const TEMPLATE_BYTES = 4 * MiB;
const GROWN_BYTES = 8 * MiB;
const SECRET = 'SECRET of root\n';

const user = (uid: number) => ({ uid, gid: uid });
const TENANTS = ['tenant-1', 'tenant-2'].map((id, i) => ({ id, owner: user(5001 + i) }));
const RUNNING = ['running-1', 'running-2'].map((id, i) => ({ id, owner: user(6001 + i) }));
const STOPPED = { id: 'stopped', owner: user(6101) };
const OTHERS = [...RUNNING, STOPPED];

// What reaches no disk.
const PURE = ['configFromEnv', 'safeVmId', 'toCloudHypervisorDisk', 'toFirecrackerDrive', 'toQemuDrive'];
const CLASSES = ['RootfsError', 'RootfsRegistry'];

/** Every call of the API that does something, so that a new one joins the campaign. */
const CALLS = [
  ...Object.getOwnPropertyNames(library.RootfsRegistry.prototype).filter((name) => name !== 'constructor'),
  ...Object.entries(library).flatMap(([name, value]) => (typeof value === 'function' ? [name] : [])),
].filter((name) => ![...PURE, ...CLASSES].includes(name));

interface Seen {
  readonly calls: number;
  readonly codes: Readonly<Record<string, number>>;
  readonly slowest: Readonly<Record<string, number>>;
  readonly faults: readonly string[];
}

describeEachFilesystem(
  ({ name, path }) => {
    test(`for ${SECONDS} s: nobody else is harmed, and every call has an end (seed ${SEED})`, {
      timeout: (SECONDS + 120) * 1000,
    }, async ({ skip }) => {
      const reason = lacksRoot() ?? lacks('docker-registry', 'zstd');
      if (reason !== undefined) skip(`${reason}, to become other users, and to push and pull`);
      const host = await Host.in(path);
      const place = await laidOut(host);
      const before = await harmless(host, place);

      const hostile = TENANTS.map(({ id, owner }, i) => new Tenant(host, place, id, owner.uid, SEED + i));
      const seen = await scheduled(host, place);
      await Promise.all(hostile.map((tenant) => tenant.end()));

      console.log(`${name}: ${summary(seen)}`);
      const after = await harmless(host, place);
      const called = new Set(Object.keys(seen.codes).map((key) => key.split(' ')[0]));
      expect(CALLS.filter((name) => !called.has(name))).toEqual([]);
      const faults = [...seen.faults, ...hostile.flatMap(({ breaches }) => breaches)];
      faults.push(...(await foreignFaults(host, place)));
      expect({ faults, ...after }).toEqual({ faults: [], ...before });
      await expectUsable(host);
    });
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

interface Place {
  readonly tenants: string;
  readonly secrets: string;
  readonly jails: string;
  readonly source: string;
  readonly program: string;
}

async function laidOut(host: Host): Promise<Place> {
  const place: Place = {
    tenants: join(host.root, 'tenants'),
    secrets: join(host.root, 'secrets'),
    jails: join(host.root, 'jails'),
    source: join(host.root, 'source.ext4'),
    program: join(host.root, 'tenant'),
  };
  execFileSync('cc', ['-O1', '-o', place.program, resolve('test/tenants/tenant.c')]);
  await chmod(host.root, 0o755);
  await chmod(await host.addExt4Template('debian', TEMPLATE_BYTES), 0o644);
  await copyFile(host.template('debian'), place.source);
  for (const folder of [place.tenants, place.secrets, place.jails]) await mkdir(folder, { mode: 0o755 });
  await writeFile(join(place.secrets, 'secret'), SECRET, { mode: 0o600 });
  for (const { id, owner } of TENANTS) {
    await mkdir(join(place.tenants, id), { mode: 0o700 });
    await chown(join(place.tenants, id), owner.uid, owner.gid);
  }
  for (const { id, owner } of [...TENANTS, ...OTHERS]) {
    const options = { writable: true, owner, mode: 0o600 } as const;
    const { path } = await host.registry.cloneForVm(id, 'debian', options);
    if (RUNNING.some((other) => other.id === id)) await running(path, owner.uid);
  }
  await host.registry.drain();
  return place;
}

/** A VMM that has its disk open and has written to it. */
async function running(image: string, uid: number): Promise<void> {
  const body = `
    const fd = require('node:fs').openSync(args.image, 'r+');
    require('node:fs').writeSync(fd, 'a guest of its own', 0);
    console.log('ready');
    process.stdin.resume();`;
  const child = startChild(body, { image }, { uid });
  await new Promise((resolve) => child.stdout?.once('data', resolve));
}

/** A hostile process, started again if it ends by what another one of its own does. */
class Tenant {
  readonly breaches: string[] = [];
  readonly #start: () => ChildProcess;
  #child: ChildProcess;
  #ended = false;

  constructor(host: Host, place: Place, id: string, uid: number, seed: number) {
    const slots = OTHERS.map((other) => host.slot(other.id).path);
    const folders = [join(place.tenants, id), host.clonesDir, host.templateDir];
    const args = [
      host.slot(id).image,
      `${TEMPLATE_BYTES}`,
      ...folders,
      join(place.secrets, 'secret'),
      ...slots,
    ];
    let starts = 0;
    this.#start = () => {
      const stdio = ['ignore', 'pipe', 'inherit'] as const;
      const child = spawn(place.program, [`${seed + starts++}`, ...args], {
        stdio: [...stdio],
        ...user(uid),
      });
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        this.breaches.push(...text.trim().split('\n'));
      });
      child.on('exit', () => {
        if (!this.#ended) this.#child = this.#start();
      });
      return child;
    };
    this.#child = this.#start();
    onTestFinished(() => this.end());
  }

  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    const gone = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }
}

async function scheduled(host: Host, { tenants, jails, source }: Place): Promise<Seen> {
  const { host: repositories } = await startOciRegistry();
  const args = {
    config: {
      templateDir: host.templateDir,
      clonesDir: host.clonesDir,
      registries: { [repositories]: { insecure: true } },
    },
    repositories,
    tenants: TENANTS.map((tenant) => ({ ...tenant, own: join(tenants, tenant.id) })),
    others: OTHERS,
    stopped: STOPPED,
    jails,
    source,
    seed: SEED,
    seconds: SECONDS,
    grownBytes: GROWN_BYTES,
    deadlineMs: DEADLINE_MS,
  };
  const child = spawn(process.execPath, [resolve('test/tenants/scheduler.cjs'), JSON.stringify(args)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_NO_WARNINGS: '1' },
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const { code, stdout, stderr } = await exitOf(child);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

/** All that no tenant may have changed, and that the scheduler was not asked to change. */
async function harmless(host: Host, { secrets }: Place): Promise<object> {
  const others: Record<string, object> = {};
  for (const { id } of OTHERS) {
    const slot = host.slot(id);
    const { ino, uid, gid, mode, size, mtimeNs } = await lstat(slot.image, { bigint: true });
    const stamp = await readFile(slot.stamp, 'utf8');
    others[id] = { ino, uid, gid, mode, size, mtimeNs, stamp, sha256: await sha256Of(slot.image) };
  }
  return {
    others,
    template: await snapshot(join(host.templateDir, 'debian')),
    secrets: await snapshot(secrets),
  };
}

/** Whatever of somebody else's a tenant has, and whatever of a tenant's lies where it must not. */
async function foreignFaults(host: Host, { tenants, secrets }: Place): Promise<string[]> {
  const faults: string[] = [];
  const valuable = new Map<string, string>();
  const note = async (path: string) => {
    const {
      dev,
      ino,
      isFile = undefined,
    } = await lstat(path).then((found) => ({ dev: found.dev, ino: found.ino, isFile: found.isFile() }));
    if (isFile) valuable.set(`${dev}:${ino}`, path);
  };
  for (const { id } of OTHERS) await note(host.slot(id).image);
  for (const folder of [secrets, host.templateDir, join(host.clonesDir, '.microvm-rootfs/sealed')])
    for (const path of await walk(folder)) await note(path);
  for (const path of await walk(tenants)) {
    const { dev, ino } = await lstat(path);
    const name = valuable.get(`${dev}:${ino}`);
    if (name !== undefined) faults.push(`${path} is ${name}`);
  }
  for (const path of [...(await walk(host.clonesDir)), ...(await walk(host.templateDir))]) {
    const isInOurs = basename(dirname(path)) === STATE_FOLDER;
    if (isInOurs && !isStateEntry(basename(path)))
      faults.push(`${path} has a name that is not listed as ours`);
    const status = await lstat(path);
    const isTenants = TENANTS.some(({ owner }) => owner.uid === status.uid);
    // A slot of its own, or one that is ready for its owner, where it cannot reach it.
    const mayBe = new RegExp(
      `/([^/]*tenant-|\\.microvm-rootfs/pool/[^/]*-o${status.uid}\\.)[^/]*/rootfs\\.ext4$`,
    );
    if (isTenants && !mayBe.test(path)) faults.push(`${path} belongs to a tenant`);
    const isShort = status.isFile() && status.size < 1 * MiB;
    if (isShort && (await readFile(path)).includes(SECRET)) faults.push(`${path} holds the secret`);
  }
  return faults;
}

/** Tenants and traces of them can be done away with. */
async function expectUsable(host: Host): Promise<void> {
  const registry = host.anotherRegistry();
  const slots = (await readdir(host.clonesDir)).filter(
    (name) => !name.startsWith('.') && !OTHERS.some(({ id }) => id === name),
  );
  for (const slot of slots) expect(await registry.release(slot), `release(${slot})`).toBe(true);
  const { sourceSha256, path } = await registry.cloneForVm('tenant-1', 'debian', { writable: true });
  expect(await sha256Of(path)).toBe(sourceSha256);
  await registry.recover();
  await registry.drain();
  expect(await host.leftovers()).toEqual([]);
}

function summary({ calls, codes, slowest }: Seen): string {
  const slow = Object.entries(slowest).sort(([, a], [, b]) => b - a);
  return `${calls} calls, ${JSON.stringify(codes)}; slowest in ms: ${slow.slice(0, 5).map(([method, ms]) => `${method} ${ms}`)}`;
}
