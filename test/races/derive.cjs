// What a process of the hammer does with what is made of slots: forks, snapshots, exports and stacks.
const { mkdir, readFile, rm, stat } = require('node:fs/promises');
const { join } = require('node:path');

const SNAPSHOTS = ['s-0', 's-1'];
const STACKS = ['p-0', 'p-1'];

/** What other processes may cause beside what they may cause everywhere, on names that all of them use. */
const SHARED_NAMES = {
  fork: ['SLOT_NOT_FOUND', 'SLOT_EXISTS'],
  snapshot: ['SLOT_NOT_FOUND', 'SNAPSHOT_EXISTS'],
  restore: ['SNAPSHOT_NOT_FOUND', 'SLOT_EXISTS'],
  verify: ['SNAPSHOT_NOT_FOUND'],
  commit: ['SLOT_NOT_FOUND', 'SOURCE_CHANGED'],
  publish: ['STACK_EXISTS'],
  'remove stack': ['STACK_IN_USE', 'TEMPLATE_CHANGED'],
  stack: ['TEMPLATE_CHANGED'],
};

/**
 * @param {{
 *   registry: import('../../src/index.js').RootfsRegistry,
 *   call: (what: string, work: () => Promise<any>, allowed?: string[]) => Promise<any>,
 *   look: (id: string) => Promise<{ mark?: string } | undefined>,
 *   fault: (what: string) => void,
 *   pick: (choices: any[]) => any,
 *   random: () => number,
 *   me: number,
 *   source: string,
 *   exports: string,
 *   sha256: string,
 * }} tools
 */
module.exports = function derive(tools) {
  const { registry, call, look, fault, pick, random, me, source, exports, sha256 } = tools;
  const onShared = (what, work) => call(what, work, SHARED_NAMES[what]);

  /** On ids, snapshots and stacks that everybody makes and takes away. */
  async function shared(id) {
    const other = pick(['derived-0', 'derived-1']);
    const name = pick(SNAPSHOTS);
    const stack = pick(STACKS);
    const replace = random() < 0.5;
    const actions = [
      () => onShared('fork', () => registry.forkSlot(id, other)),
      () => onShared('snapshot', () => registry.snapshotSlot(id, name)),
      () => onShared('restore', () => registry.restoreSnapshot(name, other)),
      () => onShared('verify', () => registry.verifySnapshot(name)),
      () => onShared('remove snapshot', () => registry.removeSnapshot(name)),
      () => onShared('publish', () => registry.publishStack(stack, source, { replace })),
      () => onShared('commit', () => registry.commitSlot(id, stack, { replace: true })),
      () => onShared('remove stack', () => registry.removeStack(stack, { force: random() < 0.5 })),
      () => onShared('stack', () => registry.stack(stack)),
    ];
    const result = await pick(actions)();
    if (result?.sourceSha256 !== undefined && result.sourceSha256 !== sha256)
      fault(`${other} was made as of ${result.sourceSha256}`);
    if ((await look(other))?.mark !== undefined) fault(`${other} holds a mark`);
    if (random() < 0.5) await onShared('release', () => registry.release(other));
  }

  /** Of a slot that this process alone has, and that its VM has written `mark` to: nothing may be in the way. */
  async function own(id, mark) {
    const derived = `${pick(['fork', 'restored'])}-${me}`;
    if (derived.startsWith('fork')) await call('fork', () => registry.forkSlot(id, derived));
    else {
      const name = `own-${me}`;
      const taken = await call('snapshot', () => registry.snapshotSlot(id, name));
      await call('restore', () => registry.restoreSnapshot(name, derived));
      const removed = await call('remove snapshot', () => registry.removeSnapshot(name));
      if (taken !== undefined && removed === false) fault(`snapshot ${name} was gone`);
    }
    const found = (await look(derived))?.mark;
    if (found !== mark) fault(`${derived} of ${id} holds ${found} rather than ${mark}`);
    if ((await call('release', () => registry.release(derived))) === false) fault(`${derived} was gone`);
    await exported(id);
  }

  /** The VM has its disk by another name, and keeps it whatever others ask for. */
  async function exported(id) {
    await mkdir(exports, { recursive: true });
    const path = join(exports, `${me}`);
    const made = await call('export', () => registry.exportTo(id, path));
    if (made === undefined) return;
    const again = await call('clone', () => registry.cloneForVm(id, 'debian', { writable: true }));
    if (made.strategy === 'hardlink' && again !== undefined) {
      const inodes = await Promise.all([path, again.path].map(async (file) => (await stat(file)).ino));
      if (inodes[0] !== inodes[1]) fault(`${id} was taken from its VM, which has it as ${path}`);
    }
    if ((await readFile(path)).length !== made.sizeBytes) fault(`${path} is not whole`);
    await rm(path);
  }

  /** Slots that nobody owns. */
  async function collect(owned) {
    const keep = [...owned, ...Array.from({ length: 16 }, (_, i) => [`fork-${i}`, `restored-${i}`]).flat()];
    const report = await call('gc', () => registry.gc({ keep }));
    for (const id of report?.released ?? []) if (keep.includes(id)) fault(`gc released ${id}`);
  }

  return { shared, own, collect };
};
