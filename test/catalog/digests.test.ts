// When a digest that is known may be used, and when the file must be read again.
import { truncateSync } from 'node:fs';
import { link, rename, stat, unlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Identity, sameState } from '../../src/addon/identity.js';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { whileHashing } from '../fixtures/while-hashing.js';

describe('one file in one state', () => {
  const state: Identity = {
    device: 1n,
    inode: 2n,
    sizeBytes: 3,
    mtimeNs: 4n,
    ctimeNs: 5n,
    links: 1,
    mount: 6n,
  };

  test.each([
    ['device', { device: 9n }],
    ['inode', { inode: 9n }],
    ['mount', { mount: 9n }],
    ['size', { sizeBytes: 9 }],
    ['mtime, to the nanosecond', { mtimeNs: 5n }],
    ['ctime while it has one link', { ctimeNs: 6n }],
  ])('is another with another %s', (_what, change) => {
    expect(sameState(state, { ...state, ...change })).toBe(false);
  });

  test('is the same after a hardlink was made or removed, which changes ctime', () => {
    const linked = { ...state, ctimeNs: 6n, links: 2 };
    expect(sameState(state, linked)).toBe(true);
    expect(sameState(linked, state)).toBe(true);
    expect(sameState(linked, { ...linked, ctimeNs: 7n, links: 3 })).toBe(true);
    expect(sameState(linked, { ...linked, mtimeNs: 5n })).toBe(false);
  });
});

test('making and removing hardlinks does not make a template be read again', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', pattern(8 * MiB));
  const { sha256: digest } = (await host.registry.stack('debian')) ?? {};
  await link(path, join(host.root, 'link'));
  // With two links the bytes can be changed behind our back if mtime is put back: which shows that nobody read them.
  const { atime, mtimeNs } = await stat(path, { bigint: true });
  await host.registry.stack('debian');
  await unlink(join(host.root, 'link'));
  expect((await host.registry.stack('debian'))?.sha256).toBe(digest);
  expect((await stat(path, { bigint: true })).mtimeNs).toBe(mtimeNs);
  expect(atime).toBeDefined();
});

test('a template that is renamed into place is seen, also with equal size and mtime', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', 'old bytes');
  await host.registry.stack('debian');
  const { atime, mtime } = await stat(path);
  const fresh = join(host.root, 'fresh');
  await writeFile(fresh, 'new bytes');
  await utimes(fresh, atime, mtime);
  await rename(fresh, path);
  expect((await host.registry.stack('debian'))?.sha256).toBe(sha256('new bytes'));
});

test('a change in place within the same tick of the clock is seen', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', 'version 0');
  for (let version = 1; version <= 20; version++) {
    const text = `version ${version % 10}`;
    await writeFile(path, text);
    expect((await host.registry.stack('debian'))?.sha256).toBe(sha256(text));
  }
});

test('a digest is not kept from a look-up that failed', async () => {
  const host = await Host.in();
  const path = await host.addTemplate('debian', pattern(64 * MiB));
  let changes = 1;
  whileHashing(() => {
    if (changes-- > 0) truncateSync(path, 64 * MiB - 1);
  });
  await rejection(host.registry.stack('debian'), 'TEMPLATE_CHANGED');
  expect((await host.registry.stack('debian'))?.sizeBytes).toBe(64 * MiB - 1);
});

test('many look-ups at once hash once', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(16 * MiB));
  const before = process.cpuUsage();
  const one = await host.registry.stack('debian');
  const single = process.cpuUsage(before);
  const other = host.anotherRegistry();
  const start = process.cpuUsage();
  const many = await Promise.all(Array.from({ length: 20 }, () => other.stack('debian')));
  const together = process.cpuUsage(start);
  for (const info of many) expect(info).toEqual(one);
  const total = (usage: NodeJS.CpuUsage) => usage.user + usage.system;
  expect(total(together)).toBeLessThan(10 * total(single) + 50_000);
});

test('a caller that aborts does not take the digest from the others', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(32 * MiB));
  const controller = new AbortController();
  const leaving = host.registry.stack('debian', { signal: controller.signal });
  const staying = host.registry.stack('debian');
  const left = rejection(leaving, 'ABORT_ERR');
  controller.abort();
  await left;
  expect((await staying)?.sizeBytes).toBe(32 * MiB);
});

test('more templates than descriptors are kept open, and all stay known', async () => {
  const host = await Host.in();
  const names = Array.from({ length: 80 }, (_, i) => `stack-${i}`);
  for (const name of names) await host.addTemplate(name, name);
  await host.registry.stacks();
  for (const name of names) {
    const clone = await host.registry.cloneForVm(name, name, { writable: true });
    expect(clone.sourceSha256).toBe(sha256(name));
  }
});
