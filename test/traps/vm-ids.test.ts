// Two ids with one folder name: the second VM must not get the first one's disk, nor take it away.
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { exists, sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;
const PAIRS = [
  ['a/b', 'a_b'],
  ['a_b', 'a/b'],
  ['a/b', 'a.b'],
  ['é', '🦀'],
  ['🦀', '_'],
  ['e\u0301', 'e?'],
] as const;

async function newHost(): Promise<Host> {
  const host = await Host.in();
  await host.addTemplate('debian', 'debian');
  return host;
}

test.each(PAIRS)('%j owns the slot, %j is refused on clone, grow and release', async (owner, other) => {
  const host = await newHost();
  const { path } = await host.registry.cloneForVm(owner, 'debian', WRITABLE);
  await writeFile(path, 'owned!');
  for (const registry of [host.registry, host.anotherRegistry()]) {
    const error = await rejection(registry.cloneForVm(other, 'debian', WRITABLE), 'VM_ID_COLLISION');
    expect(error.message).toContain(JSON.stringify(owner));
    await rejection(registry.cloneForVmWithSize(other, 'debian', 1 << 20), 'VM_ID_COLLISION');
    await rejection(registry.release(other), 'VM_ID_COLLISION');
  }
  expect(await readFile(path, 'utf8')).toBe('owned!');
  expect(await host.registry.cloneForVm(owner, 'debian')).toMatchObject({ reused: true });
  expect(await host.registry.release(owner)).toBe(true);
});

test('both at once: one gets the slot, the other the refusal', async () => {
  const host = await newHost();
  for (let round = 0; round < 10; round++) {
    const outcomes = await Promise.allSettled(
      ['a/b', 'a_b'].map((id) => host.registry.cloneForVm(id, 'debian', WRITABLE)),
    );
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refused.map(({ reason }) => reason.code)).toEqual(['VM_ID_COLLISION']);
    await Promise.allSettled(['a/b', 'a_b'].map((id) => host.registry.release(id)));
    expect(await host.slotNames()).toEqual([]);
  }
});

test('a slot of another program has no id file: its raw id is its name', async () => {
  const host = await newHost();
  await mkdir(host.slot('a_b').path, { recursive: true });
  await copyFile(host.template('debian'), host.slot('a_b').image);
  await writeFile(host.slot('a_b').stamp, await sha256Of(host.template('debian')));
  await rejection(host.registry.cloneForVm('a/b', 'debian'), 'VM_ID_COLLISION');
  expect(await host.registry.cloneForVm('a_b', 'debian')).toMatchObject({ reused: true });
});

test("a slot whose id file a power cut lost is nobody's: the stamp says that there was one", async () => {
  const host = await newHost();
  await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
  await rm(host.slot('a_b').rawId);
  for (const id of ['a_b', 'a/b', 'a.b']) {
    await rejection(host.registry.cloneForVm(id, 'debian', WRITABLE), 'SLOT_TORN');
    await rejection(host.registry.release(id), 'SLOT_TORN');
  }
  expect((await host.registry.recover()).tornSlots).toEqual(['a_b']);
});

test.each([
  ['empty', ''],
  ['of NUL bytes, as a power cut can leave it', '\0\0\0'],
  ['huge', 'x'.repeat(10_000)],
])("an id file that is %s is nobody's: torn, not handed out, not released", async (_what, contents) => {
  const host = await newHost();
  await host.registry.cloneForVm('a/b', 'debian', WRITABLE);
  await writeFile(host.slot('a_b').rawId, contents);
  for (const id of ['a/b', 'a_b']) {
    await rejection(host.registry.cloneForVm(id, 'debian'), 'SLOT_TORN');
    await rejection(host.registry.release(id), 'SLOT_TORN');
  }
  expect(await exists(host.slot('a_b').image)).toBe(true);
});

test('an id file that is not UTF-8 is not taken for the id that it would be decoded to', async () => {
  const host = await newHost();
  await host.registry.cloneForVm('\ufffd', 'debian', WRITABLE);
  expect(await host.registry.cloneForVm('\ufffd', 'debian')).toMatchObject({ reused: true });
  await writeFile(host.slot('_').rawId, Buffer.from([0xff]));
  await rejection(host.registry.cloneForVm('\ufffd', 'debian'), 'SLOT_TORN');
  await rejection(host.registry.release('\ufffd'), ['SLOT_TORN', 'VM_ID_COLLISION']);
  expect(await exists(host.slot('_').image)).toBe(true);
});

test('an id as long as a folder name allows, of code points that take four bytes each', async () => {
  const host = await newHost();
  const id = '🦀'.repeat(255);
  await host.registry.cloneForVm(id, 'debian', WRITABLE);
  expect(await readFile(host.slot('_'.repeat(255)).rawId, 'utf8')).toBe(id);
  expect(await host.registry.cloneForVm(id, 'debian')).toMatchObject({ reused: true });
  expect(await host.registry.release(id)).toBe(true);
});
