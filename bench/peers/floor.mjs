// The C floor programs as contestants.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { FloorProgram } from '../floor-programs.mjs';
import { SlotsFolder } from './slots-folder.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */
/** @typedef {import('../workspace.mjs').Template} Template */

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @returns {Promise<Contestant>}
 */
export async function floorClone(workspace, template) {
  const slots = new SlotsFolder(await workspace.newFolder('floor-clone'));
  const program = start(workspace, 'clone', [template.path, slots.path]);
  return {
    name: 'C floor, FICLONE',
    does: 'C, in a loop: open the template, create the clone, FICLONE, close both',
    sample: () => program.sample(),
    clean: () => slots.empty(),
  };
}

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @param {{ name?: string, slots?: string }} [options] `slots`: a folder that is there and stays as it is
 * @returns {Promise<Contestant>}
 */
export async function floorSlot(workspace, template, { name = 'C floor, slot', slots } = {}) {
  const program = await startWithStaging(workspace, 'slot', template, slots);
  return {
    name,
    does: 'C, in a loop: mkdir in staging, create, FICLONE, fstat, fchmod, write a 64-byte stamp, rename the folder',
    ...program,
  };
}

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @returns {Promise<Contestant>}
 */
export async function floorReadySlot(workspace, template) {
  const program = await startWithStaging(workspace, 'ready-slot', template);
  return { name: 'C floor, rename', does: 'C, in a loop: rename a folder made before', ...program };
}

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @param {number} count
 * @returns {Promise<Contestant>}
 */
export async function floorBurst(workspace, template, count) {
  const program = await startWithStaging(workspace, 'slots-two-threads', template, undefined, String(count));
  return { name: 'C floor, two threads', does: `C, two threads: ${count} slots between them`, ...program };
}

/**
 * @param {Workspace} workspace
 * @param {import('../floor-programs.mjs').FloorName} name
 * @param {Template} template
 * @param {string} [slotsPath]
 * @param {string[]} more
 */
async function startWithStaging(workspace, name, template, slotsPath, ...more) {
  const folder = await workspace.newFolder(`floor-${name}`);
  const staging = join(folder, 'staging');
  const slots = new SlotsFolder(slotsPath ?? join(folder, 'slots'));
  await mkdir(staging);
  await mkdir(slots.path, { recursive: true });
  const program = start(workspace, name, [template.path, staging, slots.path, ...more]);
  const sample = () => program.sample();
  return slotsPath === undefined ? { sample, clean: () => slots.empty() } : { sample };
}

/**
 * @param {Workspace} workspace
 * @param {import('../floor-programs.mjs').FloorName} name
 * @param {string[]} args
 */
function start(workspace, name, args) {
  const program = new FloorProgram(workspace.floor(name), args);
  workspace.onEnd(() => program.stop());
  return program;
}
