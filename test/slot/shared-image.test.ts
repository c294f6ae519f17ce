// Who else has an image that has several names: all who ask at the same time share one look at the whole folder.
import { cp, link, mkdir, readFile, writeFile } from 'node:fs/promises';
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

describeEachFilesystem((filesystem) => {
  /** A slot, and another clones folder with a slot of the same template. */
  async function twoFolders() {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', 'the template');
    const elsewhere = host.anotherRegistry({ clonesDir: join(host.root, 'elsewhere') });
    await host.registry.cloneForVm('vm-1', 'debian', { writable: false });
    const other = (await elsewhere.cloneForVm('vm-9', 'debian', { writable: false })).path;
    // They have the template open.
    await Promise.all([host.registry.close(), elsewhere.close()]);
    if (filesystem.hidesOpenFiles) await sleep(1100); // FUSE answers from its cache for a second
    return { host, other };
  }

  test('a template that lies in no folder of this registry keeps its inode to itself', async () => {
    const { host, other } = await twoFolders();
    const moved = join(host.root, 'moved');
    await cp(host.templateDir, moved, { recursive: true, preserveTimestamps: true });
    const registry = host.anotherRegistry({ templateDir: moved });
    const exported = await registry.exportTo('vm-1', join(host.root, 'disk'));
    const disk = await registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(disk.sharesTemplateInode).toBe(false);
    for (const path of [exported.path, disk.path]) await writeFile(path, 'by the guest', { flag: 'r+' });
    expect(await readFile(host.template('debian'), 'utf8')).toBe('the template');
    expect(await readFile(other, 'utf8')).toBe('the template');
    // The new image is the slot's own, whoever links it.
    await link(disk.path, join(host.root, 'backup'));
    if (filesystem.hidesOpenFiles) await sleep(1100);
    const again = await registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect([again.sharesTemplateInode, await readFile(again.path, 'utf8')]).toEqual([false, 'by the guest']);
  });

  test('nor does a slot of another clones folder share its disk when the template was replaced', async () => {
    const { host, other } = await twoFolders();
    await host.addTemplate('debian', 'the template');
    const registry = host.anotherRegistry();
    const options = { owner: { uid: 4711, gid: 4711 } };
    const shares = (await registry.cloneForVm('vm-1', 'debian', { writable: false })).sharesTemplateInode;
    if (shares) await rejection(registry.cloneForVm('vm-1', 'debian', options), 'SHARED_INODE');
    const disk = await registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await writeFile(disk.path, 'by the guest', { flag: 'r+' });
    expect(await readFile(other, 'utf8')).toBe('the template');
  });
});
