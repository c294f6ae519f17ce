// The library itself as a contestant. What this build of it does not have yet is reported, not left out.
import { timeNs, timeSyncNs } from '../timing.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */
/** @typedef {import('../workspace.mjs').Template} Template */

/**
 * @typedef {object} CloneCase
 * @property {string} [name]
 * @property {any} [registry] the workspace's own, if undefined
 * @property {number} [sizeBytes] grown to this
 * @property {boolean} [sync] by cloneForVmSync
 * @property {boolean} [pooled] the slot should come from the pool
 * @property {boolean} [packed] of a sealed image that is packed, in a registry and a clones folder of its own
 */

/** Slots that the pool keeps ready. */
export const READY = 256;

// Clones that a pooled contestant may take before it waits for the pool: two of them share it.
const TAKEN_AT_MOST = 100;

let nextVm = 0;

/** An id that no slot has yet. */
export const newVmId = () => `bench-${process.pid}-${nextVm++}`;

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @param {CloneCase} [options]
 * @returns {Promise<Contestant>}
 */
export async function libraryClone(workspace, template, options = {}) {
  const { sizeBytes, sync = false, pooled = false, packed = false } = options;
  const { registry = packed ? await registryForPacked(workspace) : workspace.registry } = options;
  const { name = `library${packed ? ', packed' : ''}${sync ? ', sync' : ''}` } = options;
  const method = sync ? 'cloneForVmSync' : 'cloneForVm';
  const cloneOptions = { writable: true, ...(sizeBytes === undefined ? {} : { sizeBytes }) };
  const does = `${method}(id, stack, { ${Object.keys(cloneOptions).join(', ')} })`;
  if (typeof registry[method] !== 'function')
    return { name, does, unavailable: `no ${method} in this build` };
  if (typeof registry.prewarm === 'function') {
    await registry.prewarm(template.stack, { ...cloneOptions, count: pooled ? READY : 0, pack: packed });
  }

  /** @type {string[]} */
  const made = [];
  /** @type {any} */
  let slot;
  let notPooled = 0;
  const cloneNs = (/** @type {string} */ id) =>
    sync
      ? timeSyncNs(() => {
          slot = registry.cloneForVmSync(id, template.stack, cloneOptions);
        })
      : timeNs(async () => {
          slot = await registry.cloneForVm(id, template.stack, cloneOptions);
        });
  return {
    name,
    does,
    async sample() {
      const id = newVmId();
      const ns = await cloneNs(id);
      made.push(id);
      check(slot, sizeBytes ?? template.sizeBytes);
      if (pooled && slot.pooled !== true) notPooled++;
      return ns;
    },
    async afterEach() {
      if (pooled && made.length % TAKEN_AT_MOST === 0) await registry.drain();
    },
    note: () => (notPooled === 0 ? undefined : `${notPooled} slots did not come from the pool`),
    clean: () => releaseAll(registry, made.splice(0)),
  };
}

/**
 * What is packed for one contestant would serve the others as well.
 * @param {Workspace} workspace
 */
async function registryForPacked(workspace) {
  const { library, templateDir } = workspace;
  const registry = new library.RootfsRegistry({
    templateDir,
    clonesDir: await workspace.newFolder('packed'),
  });
  workspace.onEnd(() => registry.close());
  return registry;
}

/**
 * @param {any} registry
 * @param {string[]} vmIds
 */
export async function releaseAll(registry, vmIds) {
  await Promise.all(vmIds.map((id) => registry.release(id)));
  await registry.drain();
}

/**
 * A fast answer must be the right one.
 * @param {any} slot
 * @param {number} sizeBytes
 */
function check(slot, sizeBytes) {
  if (slot.reused || slot.sharesTemplateInode || slot.sizeBytes !== sizeBytes) {
    throw new Error(`not the clone that was asked for: ${JSON.stringify(slot)}`);
  }
}
