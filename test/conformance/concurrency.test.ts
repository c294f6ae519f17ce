// Callers at once, in one process and in two: one slot each, whole, and nobody fails because of another.
import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import type { VmRootfs } from '../../src/index.js';
import { runChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { sha256, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';

const BYTES = pattern(256 * 1024);

describeEachFilesystem((filesystem) => {
  async function newHost(): Promise<Host> {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    return host;
  }

  test('50 clones of one id at once: one is made, 49 are reused', async () => {
    const host = await newHost();
    const clones = await Promise.all(
      Array.from({ length: 50 }, () => host.registry.cloneForVm('vm-1', 'debian', { writable: true })),
    );
    expect(clones.filter(({ reused }) => !reused)).toHaveLength(1);
    expect(new Set(clones.map(({ path }) => path)).size).toBe(1);
    expect(await sha256Of(host.slot('vm-1').image)).toBe(sha256(BYTES));
    expect(await host.slotNames()).toEqual(['vm-1']);
    // FUSE keeps a removed file under another name until it was closed, and its folder with it: that goes with the
    // session's.
    if (filesystem.seekHole) expect(await host.leftovers()).toEqual([]);
  });

  test('40 ids at once: 40 slots', async () => {
    const host = await newHost();
    const ids = Array.from({ length: 40 }, (_, i) => `vm-${i}`);
    const clones = await Promise.all(
      ids.map((id) => host.registry.cloneForVm(id, 'debian', { writable: true })),
    );
    expect(clones.every(({ reused }) => !reused)).toBe(true);
    expect(await host.slotNames()).toEqual([...ids].sort());
  });

  test('one id grown by 5 callers at once: one size stamp, all get the same', async () => {
    const host = await newHost();
    await host.addExt4Template('ext4', 4 * MiB);
    await host.registry.cloneForVm('vm-1', 'ext4', { writable: true });
    const grow = () => host.registry.cloneForVmWithSize('vm-1', 'ext4', 8 * MiB);
    // A caller can meet the slot while another one looks at its image: that is "in use", and the caller's to try again.
    const outcomes = await Promise.allSettled([grow(), grow(), grow(), grow(), grow()]);
    const codes = outcomes.map((outcome) => (outcome.status === 'fulfilled' ? 'grown' : outcome.reason.code));
    expect(codes).toContain('grown');
    expect(codes.filter((code) => code !== 'grown' && code !== 'SLOT_IN_USE')).toEqual([]);
    expect((await grow()).sizeBytes).toBe(8 * MiB);
    expect(await readFile(host.slot('vm-1').sizeStamp, 'utf8')).toBe(String(8 * MiB));
  });

  test('clone and release of one id at once: a slot is whole or absent', async () => {
    const host = await newHost();
    const work = Array.from({ length: 40 }, (_, i) =>
      i % 2 === 0
        ? host.registry.cloneForVm('vm-1', 'debian', { writable: true })
        : host.registry.release('vm-1'),
    );
    await Promise.all(work);
    const last = await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
    expect(await sha256Of(last.path)).toBe(sha256(BYTES));
    await host.registry.drain();
    expect(await host.leftovers()).toEqual([]);
  });

  test('two processes on the same ids: each slot is made once', async () => {
    const host = await newHost();
    const args = { templateDir: host.templateDir, clonesDir: host.clonesDir };
    const race = () => runChild(RACE, args);
    const results = await Promise.all([race(), race()]);
    const clones = results.flatMap(({ stdout, stderr }) => {
      expect(stderr).not.toContain('Error');
      return JSON.parse(stdout) as VmRootfs[];
    });
    expect(clones).toHaveLength(40);
    expect(clones.filter(({ reused }) => !reused)).toHaveLength(20);
    expect(await host.slotNames()).toHaveLength(20);
    for (const { path } of clones) expect(await sha256Of(path)).toBe(sha256(BYTES));
  });
});

const RACE = `
  const registry = new lib.RootfsRegistry(args);
  const clones = [];
  for (let i = 0; i < 20; i++) clones.push(await registry.cloneForVm('vm-' + i, 'debian', { writable: true }));
  await registry.close();
  console.log(JSON.stringify(clones));
`;
