// Who else has an image that has several names: all who ask at the same time share one look at the whole folder.
import { link, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { inspectSlot, native } from '../../src/addon/native.js';
import { Sharers } from '../../src/slot/shared-image.js';
import { Task } from '../../src/system/task.js';
import { cloneParts } from '../fixtures/clone-parts.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

const NAMES = Array.from({ length: 20 }, (_, i) => `vm-${i}`);
const WRITABLE = { writable: true } as const;

describeEachFilesystem((filesystem) => {
  /** Slots of which each has a second name that is nobody's. */
  async function linkedSlots() {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', 'the template');
    await host.registry.cloneMany(NAMES.map((vmId) => ({ vmId, stack: 'debian', options: WRITABLE })));
    await host.registry.drain();
    for (const name of NAMES) await link(host.slot(name).image, join(host.root, name));
    if (filesystem.hidesOpenFiles) await sleep(1100); // FUSE answers from its cache for a second
    const { config, folder } = cloneParts(host);
    const sharers = new Sharers(config);
    const looks = vi.spyOn(native(), 'identifyImages');
    onTestFinished(() => looks.mockRestore());
    const state = (name: string) => folder.use(({ handle }) => inspectSlot(handle, name));
    const find = async (name: string, signal?: AbortSignal) => {
      const seen = await state(name);
      return () => sharers.find(new Task(`reusing ${name}`, signal), name, seen, undefined);
    };
    return { host, find, looks };
  }

  test('many who ask at once are told by two looks, each of its own image', async () => {
    const { host, find, looks } = await linkedSlots();
    await mkdir(host.slot('other').path);
    await link(host.slot('vm-1').image, host.slot('other').image);
    await mkdir(dirname(host.template('of-a-vm')));
    await link(host.slot('vm-2').image, host.template('of-a-vm'));
    const finds = await Promise.all(NAMES.map((name) => find(name)));
    const sharers = await Promise.all(finds.map((each) => each()));
    expect(sharers).toEqual(
      NAMES.map((name) => (name === 'vm-1' ? 'slot' : name === 'vm-2' ? 'template' : 'nobody')),
    );
    const folders = looks.mock.calls.map(([folder]) => folder);
    expect(folders).toEqual(Array(2).fill([host.templateDir, host.clonesDir]).flat());
  });

  test('a name that an image gets while others look is seen by whoever asks afterwards', async () => {
    const { host, find, looks } = await linkedSlots();
    const { image } = host.slot('vm-1');
    const first = await find('vm-0');
    // The look that is under way has passed by that slot, and ends later.
    const { identifyImages } = native();
    let linked = () => {};
    const isLinked = new Promise<void>((resolve) => {
      linked = resolve;
    });
    let passed = () => {};
    const hasPassed = new Promise<void>((resolve) => {
      passed = resolve;
    });
    looks.mockImplementationOnce(identifyImages).mockImplementationOnce(async (...args) => {
      const found = await identifyImages(...args);
      passed();
      await isLinked;
      return found;
    });
    const early = first();
    await hasPassed;
    await mkdir(host.slot('other').path);
    await link(image, host.slot('other').image);
    const late = (await find('vm-1'))();
    linked();
    expect(await early).toBe('nobody');
    expect(await late).toBe('slot');
  });

  test('who is aborted leaves at once, and the others are told all the same', async () => {
    const { find } = await linkedSlots();
    const controller = new AbortController();
    const [first, left, stays] = await Promise.all([
      find('vm-0'),
      find('vm-1', controller.signal),
      find('vm-2'),
    ]);
    const told = [first(), stays()];
    const aborted = rejection(left(), 'ABORT_ERR');
    controller.abort();
    await aborted;
    expect(await Promise.all(told)).toEqual(['nobody', 'nobody']);
  });
});
