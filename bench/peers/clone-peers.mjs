// Other ways to give a VM a clone, as people write them: make the slot's folder, clone the image into it, write its
// stamp, all in place. Each does less than the library: no staging and no rename, so a crash leaves half a slot; no
// check of the template, of the id, of the clone's length. None of them computes the digest that it writes.
import { copyFileSync, constants as fsConstants, mkdirSync, writeFileSync } from 'node:fs';
import { copyFile, mkdir, truncate, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { run } from '../command.mjs';
import { timeNs, timeSyncNs } from '../timing.mjs';
import { SlotsFolder } from './slots-folder.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */
/** @typedef {import('../workspace.mjs').Workspace} Workspace */
/** @typedef {import('../workspace.mjs').Template} Template */
/** @typedef {(template: Template, slot: string) => Promise<unknown>} MakeSlot */

const { reflinkFile, reflinkFileSync } = createRequire(import.meta.url)('@reflink/reflink');

const DIGEST = '0'.repeat(64);
const FORCE = fsConstants.COPYFILE_FICLONE_FORCE;
const image = (/** @type {string} */ slot) => join(slot, 'rootfs.ext4');
const stamp = (/** @type {string} */ slot) => join(slot, 'rootfs.ext4.sha256');

/** 2 GiB become 8. @param {Template} template */
export const grownBytesOf = ({ sizeBytes }) => 4 * sizeBytes;

/**
 * @type {Record<'cp' | 'cp + resize2fs' | 'plain cp' | 'plain cp, flushed' | 'fs.copyFile' | '@reflink/reflink', {
 * does: string, make: MakeSlot }>}
 */
export const WAYS = {
  cp: {
    does:
      'fs.promises.mkdir; child_process.spawn of cp --reflink=always, and its exit; ' +
      'fs.promises.writeFile of the stamp',
    async make(template, slot) {
      await mkdir(slot);
      await run('cp', ['--reflink=always', template.path, image(slot)]);
      await writeFile(stamp(slot), DIGEST);
    },
  },
  'cp + resize2fs': {
    does:
      'as cp, then fs.promises.truncate to four times the size and a child_process.spawn of resize2fs -f, and its ' +
      'exit; then both stamps',
    async make(template, slot) {
      await mkdir(slot);
      await run('cp', ['--reflink=always', template.path, image(slot)]);
      await truncate(image(slot), grownBytesOf(template));
      await run('resize2fs', ['-f', image(slot)]);
      await writeFile(stamp(slot), DIGEST);
      await writeFile(`${image(slot)}.size`, String(grownBytesOf(template)));
    },
  },
  'plain cp': {
    does: 'fs.promises.mkdir; child_process.spawn of cp, and its exit; fs.promises.writeFile of the stamp',
    async make(template, slot) {
      await mkdir(slot);
      await run('cp', [template.path, image(slot)]);
      await writeFile(stamp(slot), DIGEST);
    },
  },
  'plain cp, flushed': {
    does: 'as plain cp, with a child_process.spawn of sync IMAGE, and its exit, before the stamp',
    async make(template, slot) {
      await mkdir(slot);
      await run('cp', [template.path, image(slot)]);
      await run('sync', [image(slot)]);
      await writeFile(stamp(slot), DIGEST);
    },
  },
  'fs.copyFile': {
    does: 'fs.promises.mkdir; fs.promises.copyFile with COPYFILE_FICLONE_FORCE; fs.promises.writeFile of the stamp',
    async make(template, slot) {
      await mkdir(slot);
      await copyFile(template.path, image(slot), FORCE);
      await writeFile(stamp(slot), DIGEST);
    },
  },
  '@reflink/reflink': {
    does: 'fs.promises.mkdir; reflinkFile of @reflink/reflink; fs.promises.writeFile of the stamp',
    async make(template, slot) {
      await mkdir(slot);
      await reflinkFile(template.path, image(slot));
      await writeFile(stamp(slot), DIGEST);
    },
  },
};

/**
 * @type {Record<'fs.copyFileSync' | '@reflink/reflink, sync', { does: string, make: (template: Template, slot: string)
 * => void }>}
 */
const SYNC_WAYS = {
  'fs.copyFileSync': {
    does: 'fs.mkdirSync; fs.copyFileSync with COPYFILE_FICLONE_FORCE; fs.writeFileSync of the stamp',
    make(template, slot) {
      mkdirSync(slot);
      copyFileSync(template.path, image(slot), FORCE);
      writeFileSync(stamp(slot), DIGEST);
    },
  },
  '@reflink/reflink, sync': {
    does: 'fs.mkdirSync; reflinkFileSync of @reflink/reflink; fs.writeFileSync of the stamp',
    make(template, slot) {
      mkdirSync(slot);
      reflinkFileSync(template.path, image(slot));
      writeFileSync(stamp(slot), DIGEST);
    },
  },
};

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @param {keyof typeof WAYS} name
 * @returns {Promise<Contestant>}
 */
export async function peer(workspace, template, name) {
  const { does, make } = WAYS[name];
  const slots = new SlotsFolder(await workspace.newFolder(name));
  return {
    name,
    does,
    sample() {
      const slot = slots.next();
      return timeNs(() => make(template, slot));
    },
    clean: () => slots.empty(),
  };
}

/**
 * @param {Workspace} workspace
 * @param {Template} template
 * @param {keyof typeof SYNC_WAYS} name
 * @returns {Promise<Contestant>}
 */
export async function syncPeer(workspace, template, name) {
  const { does, make } = SYNC_WAYS[name];
  const slots = new SlotsFolder(await workspace.newFolder(name));
  return {
    name,
    does,
    sample() {
      const slot = slots.next();
      return timeSyncNs(() => make(template, slot));
    },
    clean: () => slots.empty(),
  };
}
