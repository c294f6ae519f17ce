// One process of several that do everything in the API on the same ids at full speed, and look at all that they are
// given. Prints what it saw as JSON.
const { createHash } = require('node:crypto');
const { mkdir, open, readFile, rmdir } = require('node:fs/promises');
const { join } = require('node:path');
const derive = require('./derive.cjs');

const SHARED_IDS = Array.from({ length: 6 }, (_, i) => `shared-${i}`);
const OWNED_IDS = ['owned-0', 'owned-1', 'owned/2', 'owned:3'];

// What a call may say because of what other processes do at the same time.
const ALLOWED = ['SLOT_IN_USE', 'SLOT_BUSY'];

const MARK_BYTES = 512;

/**
 * @param {typeof import('../../src/index.js')} lib
 * @param {{
 *   config: { templateDir: string, clonesDir: string },
 *   locks: string,
 *   source: string,
 *   exports: string,
 *   me: number,
 *   seed: number,
 *   calls: number,
 *   sizes: { template: number, grown: number },
 *   digests: Record<string, string>,
 *   sha256: string,
 *   markOffset: number,
 *   originalAtMark: string,
 * }} args
 */
module.exports = async function hammer(lib, args) {
  const { config, locks, me, calls, sizes, digests, sha256, markOffset } = args;
  const originalAtMark = Buffer.from(args.originalAtMark, 'base64');
  const random = chance(args.seed);
  const pick = (choices) => choices[Math.floor(random() * choices.length)];
  const registry = new lib.RootfsRegistry(config);
  const seen = { calls: 0, looks: 0, owned: 0, outcomes: {}, faults: [] };

  const fault = (what) => seen.faults.push(`process ${me}, call ${seen.calls}: ${what}`);
  const note = (outcome) => {
    seen.outcomes[outcome] = (seen.outcomes[outcome] ?? 0) + 1;
  };

  /** Undefined where other processes were in the way. */
  async function call(what, work, allowed = []) {
    seen.calls++;
    try {
      const result = await work();
      note(what);
      return result;
    } catch (error) {
      note(error.code);
      if (![...ALLOWED, ...allowed].includes(error.code)) fault(`${what}: ${error.stack}`);
      return undefined;
    }
  }

  const clone = (id) => call('clone', () => registry.cloneForVm(id, 'debian', { writable: true }));
  const grow = (id) =>
    call('grow', () => registry.cloneForVmWithSize(id, 'debian', sizes.grown, { writable: true }));
  const release = (id) => call('release', () => registry.release(id));

  /** All bytes of an image, and whose mark is in it. Undefined if the slot has been released meanwhile. */
  async function look(id) {
    const path = join(config.clonesDir, lib.safeVmId(id), 'rootfs.ext4');
    let stamp;
    let bytes;
    try {
      stamp = await readFile(`${path}.sha256`, 'utf8');
      bytes = await readFile(path);
    } catch (error) {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    }
    seen.looks++;
    const mark = /^mark of (\S+);/.exec(bytes.toString('latin1', markOffset, markOffset + MARK_BYTES))?.[1];
    if (mark !== undefined) originalAtMark.copy(bytes, markOffset);
    if (stamp !== sha256) fault(`${id} has the stamp "${stamp}"`);
    const digest = createHash('sha256').update(bytes).digest('hex');
    if (digests[bytes.length] !== digest)
      fault(`${id} has ${bytes.length} bytes that are not its template's`);
    return { mark, sizeBytes: bytes.length };
  }

  const { source, exports } = args;
  const derived = derive({ registry, call, look, fault, pick, random, me, source, exports, sha256 });

  /** On ids that everybody clones, grows and releases: nobody writes to them. */
  async function shared() {
    const id = pick(SHARED_IDS);
    const kind = pick([
      'clone',
      'clone',
      'clone',
      'clone',
      'grow',
      'release',
      'release',
      'release',
      'release',
    ]);
    if (kind === 'release') {
      await release(id);
      return;
    }
    const disk = await (kind === 'grow' ? grow : clone)(id);
    if (disk === undefined) return;
    if (disk.sourceSha256 !== sha256) fault(`${id} was handed out as of ${disk.sourceSha256}`);
    if (kind === 'grow' && disk.sizeBytes !== sizes.grown) fault(`${id} was grown to ${disk.sizeBytes}`);
    if (random() < 0.3 && (await look(id))?.mark !== undefined) fault(`${id} holds a mark`);
  }

  /** Somebody else's id may be asked for, but is left as it is. */
  async function visit() {
    const id = pick(OWNED_IDS);
    await clone(id);
    await look(id);
  }

  /** The life of a VM. Only one process at a time is the owner of an id: only it writes, grows and releases. */
  async function own() {
    const id = pick(OWNED_IDS);
    const lock = join(locks, lib.safeVmId(id));
    try {
      await mkdir(lock);
    } catch {
      return; // another process is
    }
    seen.owned++;
    await clone(id);
    const fresh = await look(id);
    if (fresh === undefined) fault(`${id} is not there after it was cloned`);
    if (fresh?.mark !== undefined) fault(`${id} holds the bytes of an earlier VM, ${fresh.mark}`);
    const mark = `${me}-${seen.calls}`;
    const file = await open(join(config.clonesDir, lib.safeVmId(id), 'rootfs.ext4'), 'r+');
    await file.write(Buffer.alloc(MARK_BYTES, `mark of ${mark};`), 0, undefined, markOffset);
    await file.close();
    const grown = random() < 0.3 ? await grow(id) : undefined;
    const again = await clone(id);
    if (again?.reused === false) fault(`${id} was gone while its VM had it`);
    const kept = await look(id);
    if (kept?.mark !== mark) fault(`${id} has lost what its VM wrote: ${kept?.mark} rather than ${mark}`);
    if (grown !== undefined && kept?.sizeBytes !== sizes.grown)
      fault(`${id} was grown to ${kept?.sizeBytes}`);
    if (random() < 0.3 && kept !== undefined) await derived.own(id, mark);
    if ((await release(id)) === false) fault(`${id} was not there to be released`);
    await rmdir(lock);
  }

  while (seen.calls < calls) {
    const dice = random();
    if (dice < 0.45) await shared();
    else if (dice < 0.58) await derived.shared(pick(SHARED_IDS));
    else if (dice < 0.6) await derived.collect(OWNED_IDS);
    else if (dice < 0.8) await own();
    else if (dice < 0.9) await visit();
    else if (dice < 0.95) await call('recover', () => registry.recover());
    else
      await call('prewarm', () =>
        registry.prewarm('debian', { count: 3, ...(random() < 0.3 ? { sizeBytes: sizes.grown } : {}) }),
      );
  }
  await registry.close();
  console.log(JSON.stringify(seen));
};

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
