// What a clone is made from, and which step has to come before it.
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CloneRequest, CloneRound } from '../../src/clone/clone-plan.js';
import { CloneSources } from '../../src/clone/clone-sources.js';
import { cloneParts } from '../fixtures/clone-parts.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection, thrown } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const SIZE = 32 * MiB;
const FULL = { strategy: 'seal', code: 'ENOSPC' } as const;

type Skip = (why?: string) => void;

/** A host with a template, on a file system that reflinks or on one that does not. */
async function sourcesOn(skip: Skip, name: 'XFS' | 'ext4', sealing = true) {
  const filesystem = filesystemNamed(name);
  const missing = filesystem.missing ?? lacks('mke2fs');
  if (missing !== undefined) skip(missing);
  const host = await Host.in(filesystem.path);
  await host.addExt4Template('debian', SIZE);
  const parts = cloneParts(host);
  const { folder, templates, stacks, sealed, pool } = parts;
  const sources = new CloneSources(folder, templates, stacks, sealing ? sealed : undefined, pool);
  const prepare = (request: CloneRequest, fromPool: boolean, sealFailure: CloneRound['sealFailure']) =>
    folder.use(async (open) => sources.prepare({ folder: open, request, fromPool, sealFailure }));
  return { host, ...parts, sources, prepare };
}

function isPrepared<T>(prepared: T): asserts prepared is Exclude<T, string> {
  expect(typeof prepared, String(prepared)).toBe('object');
}

test('on a disk that reflinks: look, which seals, and from then on every clone comes from the sealed image', async ({
  skip,
}) => {
  const { sources, prepare, request } = await sourcesOn(skip, 'XFS');
  const plain = request('vm', 'debian');
  expect(sources.isKnown(plain)).toBe(false);
  expect(await prepare(plain, false, undefined)).toBe('template-changed');
  const template = await sources.look(plain);
  expect(sources.isKnown(plain)).toBe(true);
  const prepared = await prepare(plain, false, undefined);
  isPrepared(prepared);
  expect(prepared).toMatchObject({ template, growTo: undefined, rawId: undefined, ready: undefined });
  expect(prepared.cloneSource).toMatchObject({ sealed: true, identity: { sizeBytes: SIZE } });
  expect(prepared.attempts).toEqual([]);

  const grown = request('vm:1', 'debian', { sizeBytes: 2 * SIZE });
  expect(await prepare(grown, false, undefined)).toBe('unsealed');
  expect(await sources.seal(grown, template)).toBeUndefined();
  const large = await prepare(grown, false, undefined);
  isPrepared(large);
  // It has its size already.
  expect(large).toMatchObject({ rawId: 'vm:1', growTo: undefined, plan: { sizeStamp: 2 * SIZE } });
  expect(large.cloneSource).toMatchObject({ sealed: true, identity: { sizeBytes: 2 * SIZE } });
});

test('without reflinks, without sealing, or after sealing failed, a clone comes from the template itself', async ({
  skip,
}) => {
  for (const [name, sealing, failure] of [
    ['ext4', true, undefined],
    ['XFS', false, undefined],
    ['XFS', true, FULL],
  ] as const) {
    const { sources, prepare, request, sealed } = await sourcesOn(skip, name, sealing);
    const grown = request('vm', 'debian', { sizeBytes: 2 * SIZE });
    const template = await sources.look(grown);
    const prepared = await prepare(grown, false, failure);
    isPrepared(prepared);
    expect(prepared).toMatchObject({ growTo: 2 * SIZE, attempts: failure === undefined ? [] : [failure] });
    expect(prepared.cloneSource).toMatchObject({ sealed: false, identity: template.identity });
    if (failure === undefined) {
      expect(await sources.seal(grown, template)).toBeUndefined();
      expect(await sealed.images.list()).toEqual([]);
    }
    expect(sources.sourceChanged(prepared)).toBe('template-changed');
  }
});

test('for a clone that will be refused nothing is sealed', async ({ skip }) => {
  const { sources, prepare, request, sealed, folder } = await sourcesOn(skip, 'XFS');
  const small = request('vm', 'debian', { sizeBytes: SIZE - 1 });
  const template = await sources.look(small);
  expect(template.identity.sizeBytes).toBe(SIZE);
  expect(await sealed.images.list()).toEqual([]);
  await rejection(prepare(small, true, undefined), 'SHRINK_REFUSED');
  await rejection(sources.seal(small, template), 'SHRINK_REFUSED');
  await rejection(sources.warmUp(small), 'SHRINK_REFUSED');
  await folder.use(async (open) => {
    thrown(
      () => sources.prepare({ folder: open, request: small, fromPool: false, sealFailure: FULL }),
      'SHRINK_REFUSED',
    );
  });
  expect(await sealed.images.list()).toEqual([]);
});

test('a sealed image that changed is forgotten, and only that: the template need not be read again', async ({
  skip,
}) => {
  const { sources, prepare, request } = await sourcesOn(skip, 'XFS');
  const plain = request('vm', 'debian');
  const template = await sources.warmUp(plain);
  const prepared = await prepare(plain, false, undefined);
  isPrepared(prepared);
  expect(sources.sourceChanged(prepared)).toBe('unsealed');
  expect(await prepare(plain, false, undefined)).toBe('unsealed');
  expect(sources.isKnown(plain)).toBe(true);
  await sources.seal(plain, template);
  const again = await prepare(plain, false, undefined);
  isPrepared(again);
  // A clone that saw it without a name is whole; the next one is not made of it.
  sources.sourceSeen(again, { ...again.cloneSource.identity, links: 0 });
  expect(await prepare(plain, false, undefined)).toBe('unsealed');
});

test('a template that goes, or is another, while it is sealed is looked at again', async ({ skip }) => {
  const { sources, request, host } = await sourcesOn(skip, 'XFS');
  const grown = request('vm', 'debian', { sizeBytes: 2 * SIZE });
  const sealedAt = request('vm', 'debian');
  // Its digest is known, and nothing of it is sealed.
  const template = await sources.look(request('vm', 'debian', { sizeBytes: 1 }));
  const away = join(host.root, 'away');
  await rename(template.path, away);
  expect(await sources.seal(grown, template)).toBe('template-changed');
  expect(await sources.seal(sealedAt, template)).toBe('template-changed');
  const error = await rejection(sources.look(grown), 'STACK_NOT_FOUND');
  expect(error.message).toContain('debian');
  await host.addExt4Template('debian', SIZE, ['-L', 'other']);
  expect(await sources.seal(sealedAt, template)).toBe('template-changed');
  expect((await sources.look(sealedAt)).sha256).not.toBe(template.sha256);
  await rm(away);
});

test('a template that is removed before it is sealed is no stack any more; one that is back is sealed', async ({
  skip,
}) => {
  const { sources, request, templates, host } = await sourcesOn(skip, 'XFS');
  const plain = request('vm', 'debian');
  const template = await sources.look(request('vm', 'debian', { sizeBytes: 1 }));
  const away = join(host.root, 'away');
  const { look } = templates;
  // What is sealed in the end needs its template no more.
  for (const [comesBack, pack] of [
    [false, false],
    [false, true],
    [true, false],
  ]) {
    let looks = 0;
    templates.look = async (...args) => {
      if (looks++ === 1 && comesBack) await rename(away, template.path);
      const found = await look.apply(templates, args);
      if (looks === 1) await rename(template.path, away);
      return found;
    };
    const warmed = sources.warmUp(plain, pack);
    if (comesBack) expect((await warmed).sha256).toBe(template.sha256);
    else await rejection(warmed, 'STACK_NOT_FOUND');
    expect(looks).toBe(2);
    templates.look = look;
    if (comesBack) continue;
    await rename(away, template.path);
    await look.call(templates, template.path, undefined);
  }
});

test('a ready slot is taken once, by the request that it was made for, and can be given back', async ({
  skip,
}) => {
  const { sources, prepare, request, pool } = await sourcesOn(skip, 'XFS');
  const plain = request('vm', 'debian', { writable: true });
  const template = await sources.warmUp(plain);
  const key = { template, grownTo: undefined, owner: undefined, mode: undefined };
  const name = `${template.sha256}-ready`;
  let made = 0;
  const make = async () => (made++ === 0 ? name : `${name}-${made}`);
  await pool.keep(key, { id: 'any', count: 1, make, renew: async () => {} }, undefined);
  const other = await prepare(request('vm', 'debian', { mode: 0o640 }), true, undefined);
  isPrepared(other);
  expect(other.ready).toBeUndefined();
  const withoutPool = await prepare(plain, false, undefined);
  isPrepared(withoutPool);
  expect(withoutPool.ready).toBeUndefined();
  const first = await prepare(plain, true, undefined);
  isPrepared(first);
  expect(first.ready).toBe(name);
  const second = await prepare(plain, true, undefined);
  isPrepared(second);
  expect(second.ready).not.toBe(name);
  sources.giveBack(second);
  sources.giveBack(first);
  const third = await prepare(plain, true, undefined);
  isPrepared(third);
  expect(third.ready).toBe(name);
});
