// Replacing the image of a slot. Between the decision and the change others can grow, release or clone the same id:
// whatever the change was decided on is looked at again.
import { chmod, link, mkdir, open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { RootfsError, RootfsRegistry, VmRootfs } from '../../src/index.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { findTool } from '../fixtures/tools.js';

const WRITABLE = { writable: true } as const;
const GROWN = 32 * MiB;

/** A registry whose resize2fs says that it has started, and then waits. */
class SlowGrower {
  readonly registry: RootfsRegistry;
  readonly #started: string;
  readonly #go: string;

  private constructor(host: Host, program: string) {
    this.#started = `${program}.started`;
    this.#go = `${program}.go`;
    this.registry = host.anotherRegistry({ resize2fsBin: program });
  }

  static async on(host: Host): Promise<SlowGrower> {
    const program = join(host.root, 'slow-resize2fs');
    const grower = new SlowGrower(host, program);
    const lines = [
      '#!/bin/sh',
      `: > '${grower.#started}'`,
      `while [ ! -e '${grower.#go}' ]; do sleep 0.01; done`,
      `exec '${findTool('resize2fs')}' "$@"`,
    ];
    await writeFile(program, lines.join('\n'));
    await chmod(program, 0o755);
    return grower;
  }

  async started(): Promise<void> {
    while (!(await exists(this.#started))) await sleep(5);
  }

  async goOn(): Promise<void> {
    await writeFile(this.#go, '');
  }
}

function label(path: string): Promise<string> {
  return readFile(path, { encoding: 'latin1' }).then((bytes) =>
    bytes.slice(1024 + 120, 1024 + 136).replace(/\0/g, ''),
  );
}

describeEachFilesystem(
  (filesystem) => {
    async function newHost(): Promise<Host> {
      const host = await Host.in(filesystem.path);
      for (const stack of ['debian', 'alpine']) await host.addExt4Template(stack, 16 * MiB, ['-L', stack]);
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      return host;
    }

    test('of two callers that ask for one size the second gets the slot that the first has grown', async () => {
      const host = await newHost();
      const slow = await SlowGrower.on(host);
      const first = slow.registry.cloneForVmWithSize('vm-1', 'debian', GROWN, WRITABLE);
      await slow.started();
      const second = host.registry.cloneForVmWithSize('vm-1', 'debian', GROWN, WRITABLE);
      await sleep(50);
      await slow.goOn();
      const { path } = await first;
      // The first caller starts its VM at once.
      const vm = await open(path, 'r+');
      expect(await second).toMatchObject({ reused: true, sizeBytes: GROWN });
      await vm.close();
    });

    test.each([
      ['the same id of another stack', 'vm-1', 'vm-1'],
      ['another id with the same folder name', 'vm_2', 'vm/2'],
    ])(
      'while a grow waits for another, the slot becomes that of %s: no caller is told of a disk that is not its own',
      async (_what, id, next) => {
        const host = await newHost();
        await host.registry.cloneForVm(id, 'debian', WRITABLE);
        const other = host.anotherRegistry();
        const slow = await SlowGrower.on(host);
        const settled = (clone: Promise<VmRootfs>) => clone.catch((error: RootfsError) => error);
        const grow = (registry: RootfsRegistry) =>
          settled(registry.cloneForVmWithSize(id, 'debian', GROWN, WRITABLE));
        const first = grow(slow.registry);
        await slow.started();
        const second = grow(host.registry);
        await sleep(50);
        await other.release(id);
        const third = await settled(other.cloneForVm(next, 'alpine', WRITABLE));
        const { image } = host.slot(id);
        const { ino } = await stat(image);
        await slow.goOn();
        const outcomes = [...(await Promise.all([first, second])), third];
        const stack = await label(image);
        // The callers that lost are told so. On ext4 the second grow can be faster than the new clone.
        for (const outcome of outcomes) {
          if ('code' in outcome) expect(['STAMP_MISMATCH', 'VM_ID_COLLISION']).toContain(outcome.code);
          else expect(outcome.stack).toBe(stack);
        }
        if (!('code' in third)) expect((await stat(image)).ino).toBe(ino);
        expect(await host.leftovers()).toEqual([]);
      },
    );

    test('a second name from a jail or a backup does not make an image the template’s', async () => {
      const host = await newHost();
      const { image } = host.slot('vm-1');
      await link(image, join(host.root, 'jail'));
      const { ino } = await stat(image);
      const vm = await open(join(host.root, 'jail'), 'r+');
      expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({
        reused: true,
        sharesTemplateInode: false,
      });
      await rejection(host.registry.cloneForVmWithSize('vm-1', 'debian', GROWN, WRITABLE), 'SLOT_IN_USE');
      await rejection(
        host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, mode: 0o640 }),
        'SHARED_INODE',
      );
      expect(await stat(image)).toMatchObject({ ino, mode: 0o100600 });
      await vm.close();
      expect(await host.registry.cloneForVmWithSize('vm-1', 'debian', GROWN, WRITABLE)).toMatchObject({
        sizeBytes: GROWN,
      });
    });

    test('an image that is another slot’s as well gets a file of its own, unless somebody has it open', async () => {
      const host = await newHost();
      const { image, path } = host.slot('vm-2');
      await host.registry.cloneForVm('vm-2', 'debian', WRITABLE);
      await host.registry.release('vm-1');
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      // As if both were hardlinks of a template that has been replaced by another with the same bytes.
      await writeFile(join(host.root, 'stamp'), await readFile(host.slot('vm-1').stamp));
      const { ino } = await stat(host.slot('vm-1').image);
      await host.registry.release('vm-2');
      await mkdir(path);
      await link(host.slot('vm-1').image, image);
      await writeFile(host.slot('vm-2').stamp, await readFile(join(host.root, 'stamp')));
      await rejection(host.registry.cloneForVm('vm-2', 'debian', { mode: 0o640 }), 'SHARED_INODE');
      const vm = await open(host.slot('vm-1').image, 'r');
      await rejection(host.registry.cloneForVm('vm-2', 'debian', WRITABLE), 'SLOT_IN_USE');
      await vm.close();
      expect((await host.registry.cloneForVm('vm-2', 'debian', WRITABLE)).sharesTemplateInode).toBe(false);
      expect((await stat(image)).ino).not.toBe(ino);
      expect((await stat(host.slot('vm-1').image)).ino).toBe(ino);
    });
  },
  // One that shares blocks, and one that does not.
  ({ name }) => ['XFS', 'ext4'].includes(name),
);
