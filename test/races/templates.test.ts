// Templates that another process keeps replacing while they are cloned, as one should and as one should not.
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { RootfsError } from '../../src/index.js';
import { exitOf, printed, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, pattern } from '../fixtures/images.js';

const CLONES = 120;
// A busy machine gives a template little time to settle.
const CLONED_AT_LEAST = 10;
const BYTES = 384 * KiB;

// What a clone may say while its template is being replaced. One that was truncated is empty for a moment.
const ALLOWED = ['TEMPLATE_CHANGED', 'SLOT_BUSY'];
const ALLOWED_OF_EMPTY = [...ALLOWED, 'TEMPLATE_INVALID'];

/** What the other process does to the template at `path`, over and over. */
const WAYS = {
  'by rename': `fs.writeFileSync(path + '.new', bytes(i)); fs.renameSync(path + '.new', path);`,
  'in place': `
    const file = fs.openSync(path, 'r+');
    for (let at = 0; at < length; at += length / 4) {
      fs.writeSync(file, bytes(i), at, length / 4, at);
      await tick();
    }
    fs.closeSync(file);`,
  'truncated and written anew': `
    fs.truncateSync(path, 0);
    await tick();
    fs.writeFileSync(path, bytes(i), { flag: 'r+' });`,
} as const;

describeEachFilesystem(
  ({ name, path }) => {
    test.each(Object.entries(WAYS))(
      'templates replaced %s while they are cloned: a stamp never disagrees with its image',
      async (way, replace) => {
        const host = await Host.in(path);
        const template = await host.addTemplate('debian', pattern(BYTES));
        const child = startChild(replaceForEver(replace), { path: template, length: BYTES });
        const exit = exitOf(child);
        await printed(child, 'started');
        const allowed = way.startsWith('truncated') ? ALLOWED_OF_EMPTY : ALLOWED;
        const codes: Record<string, number> = {};
        const digests = new Set<string>();
        for (let i = 0; i < CLONES || (codes.cloned ?? 0) < CLONED_AT_LEAST; i++) {
          const outcome = await host.registry
            .cloneForVm(`vm-${i}`, 'debian', { writable: true })
            .catch((error: unknown) => error);
          const code = outcome instanceof RootfsError ? outcome.code : 'cloned';
          codes[code] = (codes[code] ?? 0) + 1;
          if (outcome instanceof RootfsError) expect(allowed, outcome.message).toContain(outcome.code);
          else if (outcome instanceof Error) throw outcome;
        }
        child.stdin?.end();
        expect(await exit).toMatchObject({ code: 0, stderr: '' });
        for (const slot of await host.slotNames()) {
          const stamp = await readFile(host.slot(slot).stamp, 'utf8');
          expect(await sha256Of(host.slot(slot).image), slot).toBe(stamp);
          digests.add(stamp);
        }
        console.log(`${name}, ${way}: ${JSON.stringify(codes)}, ${digests.size} different templates`);
        await host.registry.recover();
        expect(await host.leftovers()).toEqual([]);
      },
      120_000,
    );
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);

/** With a rest of up to 60 ms in between: long enough, now and then, for a template to settle. */
function replaceForEver(replace: string): string {
  return `
    const fs = require('node:fs');
    const { path, length } = args;
    const tick = () => new Promise((resolve) => setImmediate(resolve));
    const bytes = (i) => Buffer.alloc(length, require('node:crypto').createHash('sha256').update(String(i)).digest());
    let ended = false;
    process.stdin.on('end', () => { ended = true; }).resume();
    console.log('started');
    for (let i = 0; !ended; i++) {
      ${replace}
      await new Promise((resolve) => setTimeout(resolve, (i * 37) % 60));
    }
  `;
}
