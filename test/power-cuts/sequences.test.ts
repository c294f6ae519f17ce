// Sequences that are hard to get right, each cut after its last step.
import { open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import type { RootfsRegistry } from '../../src/index.js';
import { ABSENT, keyOf } from '../fixtures/disk-states.js';
import { exists, sha256Of, walk } from '../fixtures/files.js';
import { GROWN_BYTES } from '../fixtures/growable.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';
import { Random } from '../fixtures/random.js';
import { type CutBench, describeEachDisk, use } from './cut-hosts.js';
import type { CutHost } from './host.js';
import { Inspection } from './inspection.js';
import type { Promised } from './promises.js';

const WRITABLE = { writable: true } as const;

describeEachDisk((_kind, bench) => {
  test('a slot that was cloned without durable and grown with it is there', async () => {
    const { host } = await bench();
    await cutAfter(await bench(), { 'vm-1': there(host, GROWN_BYTES) }, async (registry) => {
      await registry.cloneForVm('vm-1', 'ext4', WRITABLE);
      await registry.cloneForVmWithSize('vm-1', 'ext4', GROWN_BYTES, { durable: true });
    });
  });

  test('a slot that came from the pool, and is then asked for with durable, is there', async () => {
    const { host } = await bench();
    await cutAfter(await bench(), { 'vm-1': there(host, MiB) }, async (registry) => {
      await registry.prewarm('ext4', { count: 1 });
      expect((await registry.cloneForVm('vm-1', 'ext4', WRITABLE)).pooled).toBe(true);
      await registry.cloneForVm('vm-1', 'ext4', { ...WRITABLE, durable: true });
    });
  });

  test('a durable slot survives that it is grown without durable, in its old form or in the new', async () => {
    const { host } = await bench();
    const either = { 'vm-1': { ...there(host, GROWN_BYTES), possible: sizes(host, MiB, GROWN_BYTES) } };
    for (const flushed of [[], ['slot folder'], ['small files']]) {
      await cutAfter(await bench(), either, async (registry) => {
        await registry.cloneForVm('vm-1', 'ext4', { ...WRITABLE, durable: true });
        await registry.cloneForVmWithSize('vm-1', 'ext4', GROWN_BYTES);
        await flush(host, 'vm-1', flushed);
        await flushFile(join(host.path, 'of somebody else'));
      });
    }
  });

  test('a grown slot whose small files are written back before its image is not taken for whole', async () => {
    const { host } = await bench();
    const anything: Promised = {
      stack: 'ext4',
      possible: new Set([ABSENT, ...sizes(host, GROWN_BYTES)]),
      mayBeTorn: true,
    };
    await cutAfter(await bench(), { 'vm-1': anything }, async (registry) => {
      await registry.cloneForVmWithSize('vm-1', 'ext4', GROWN_BYTES, WRITABLE);
      await flush(host, 'vm-1', ['small files', 'slot folder']);
    });
  });

  test('a copied slot is not handed out if the power goes before its image has reached the disk', async () => {
    const { host } = await bench();
    const anything: Promised = {
      stack: 'ext4',
      possible: new Set([ABSENT, ...sizes(host, MiB)]),
      mayBeTorn: true,
    };
    // The power goes before the flush behind the caller begins.
    const flushCopied = vi.spyOn(native(), 'flushCopiedSlots').mockResolvedValue();
    onTestFinished(() => flushCopied.mockRestore());
    for (const flushed of [[], ['slot folder'], ['small files'], ['small files', 'slot folder']]) {
      await cutAfter(await bench(), { 'vm-1': anything }, async (registry) => {
        await registry.cloneForVm('vm-1', 'ext4', WRITABLE);
        await flush(host, 'vm-1', flushed);
        await flushFile(join(host.path, 'of somebody else'));
      });
    }
  });

  test('a copied slot whose data was flushed behind the caller is there', async () => {
    const { host } = await bench();
    const there: Promised = { stack: 'ext4', possible: sizes(host, MiB), mayBeTorn: false };
    await cutAfter(await bench(), { 'vm-1': there }, async (registry) => {
      await registry.cloneForVm('vm-1', 'ext4', WRITABLE);
      await registry.drain();
      await flush(host, 'vm-1', ['small files', 'slot folder']);
      await flushFile(host.clonesDir);
      await flushFile(host.image('vm-1'));
    });
  });

  test('a grown slot of the pool whose small files are written back before its image is not handed out', async () => {
    const { disk, host } = await bench();
    const copy = await disk.fresh(() =>
      use(host, async (registry) => {
        await registry.prewarm('ext4', { count: 2, sizeBytes: GROWN_BYTES });
        const pool = join(host.clonesDir, '.microvm-rootfs/pool');
        for (const path of await walk(pool))
          if (!path.endsWith('.ext4') && !path.endsWith('.unsettled')) await flushFile(path);
        await flushFile(pool);
        return disk.cut();
      }),
    );
    await disk.restarted(copy, () =>
      use(host, async (registry) => {
        await registry.prewarm('ext4', { count: 2, sizeBytes: GROWN_BYTES });
        for (const id of ['vm-1', 'vm-2']) {
          const { path } = await registry.cloneForVm(id, 'ext4', { ...WRITABLE, sizeBytes: GROWN_BYTES });
          expect(await sha256Of(path)).toBe(host.pristine.get(host.digestOf('ext4'), GROWN_BYTES)?.digest);
        }
      }),
    );
  });

  test('the digest of a template that was never flushed, and lost its data, is not remembered', async () => {
    const { disk, host } = await bench();
    const copy = await disk.fresh(() =>
      use(host, async (registry) => {
        await registry.cloneForVm('vm-1', 'ext4', WRITABLE);
        await replaceUnflushed(host);
        // Digests are written to disk, and flushed, when they are learnt.
        await registry.stacks();
        await registry.cloneForVm('vm-2', 'changing', WRITABLE);
        await flushFile(join(host.path, 'of somebody else'));
        return disk.cut();
      }),
    );
    await disk.restarted(copy, () =>
      use(host, async (registry) => {
        const changing = await registry.stack('changing');
        expect(changing?.sha256).toBe(await sha256Of(host.templatePath('changing')));
      }),
    );
  });

  test.each([
    { what: 'stamp', flushed: ['.sha256'], pooled: false },
    { what: 'image', flushed: [''], pooled: false },
    { what: 'image and stamp', flushed: ['', '.sha256'], pooled: false },
    { what: 'image and stamp, from the pool,', flushed: ['', '.sha256'], pooled: true },
  ])(
    'a slot of whose files others flush only the $what: no other id is given it, its own can be cloned again',
    async ({ flushed, pooled }) => {
      const { disk, host } = await bench();
      const copy = await disk.fresh(() =>
        use(host, async (registry) => {
          if (pooled) await registry.prewarm('ext4', { count: 1 });
          const clone = await registry.cloneForVm('vm/1', 'ext4', WRITABLE);
          expect(clone.pooled).toBe(pooled);
          for (const suffix of flushed) await flushFile(`${clone.path}${suffix}`);
          return disk.cut();
        }),
      );
      await disk.restarted(copy, () =>
        use(host, async (registry) => {
          const slot = join(host.clonesDir, 'vm_1');
          if (!(await exists(slot))) return;
          const other = await registry.cloneForVm('vm_1', 'ext4', WRITABLE).catch((error) => error);
          expect(['SLOT_TORN', 'VM_ID_COLLISION']).toContain(other.code);
          const own = await registry.cloneForVm('vm/1', 'ext4', WRITABLE).catch((error) => error);
          if (own instanceof Error) expect(own).toMatchObject({ code: 'SLOT_TORN' });
          for (const name of (await registry.recover()).unstamped) await registry.release(name);
          const { path } = await registry.cloneForVm('vm/1', 'ext4', WRITABLE);
          expect(await sha256Of(path)).toBe(host.digestOf('ext4'));
        }),
      );
    },
  );

  test.each(['rootfs.ext4.size.new', 'rootfs.ext4.stack'])(
    'a slot of whose files only %s is left is torn for its own raw id too, and can be released',
    async (left) => {
      const { disk, host } = await bench();
      await disk.fresh(() =>
        use(host, async (registry) => {
          const slot = join(host.clonesDir, 'vm_1');
          const tear = async () => {
            await registry.cloneForVm('vm/1', 'ext4', WRITABLE);
            for (const path of await walk(slot)) await rm(path, { force: true });
            await writeFile(join(slot, left), `${GROWN_BYTES}`);
          };
          await tear();
          const again = await registry.cloneForVm('vm/1', 'ext4', WRITABLE).catch((error) => error);
          expect(again).toMatchObject({ code: 'SLOT_TORN' });
          expect(await registry.release('vm/1')).toBe(true);
          expect(await exists(slot)).toBe(false);
          await tear();
          const { tornSlots, settledSlots } = await registry.recover();
          expect([...tornSlots, ...settledSlots]).toEqual(['vm_1']);
        }),
      );
    },
  );

  test('of a slot of which only the folder is left, nothing is left: its id is cloned anew', async () => {
    const { disk, host } = await bench();
    await disk.fresh(() =>
      use(host, async (registry) => {
        const slot = join(host.clonesDir, 'vm_1');
        await registry.cloneForVm('vm/1', 'ext4', WRITABLE);
        for (const path of await walk(slot)) await rm(path, { force: true });
        expect((await registry.recover()).tornSlots).toEqual([]);
        expect(await registry.cloneForVm('vm/1', 'ext4', WRITABLE)).toMatchObject({ reused: false });
      }),
    );
  });
});

/** Runs the work, cuts the power, and looks at what is left, once with recover() first and once without. */
async function cutAfter(
  { disk, host }: CutBench,
  promised: Readonly<Record<string, Promised>>,
  work: (registry: RootfsRegistry) => Promise<void>,
): Promise<void> {
  const copies = await disk.fresh(() =>
    use(host, async (registry) => {
      await work(registry);
      return [disk.cut(), disk.cut()];
    }),
  );
  for (const [index, copy] of copies.entries()) {
    const cut = { copy, promised: new Map(Object.entries(promised)), things: new Map(), story: [] };
    await disk.restarted(copy, () => new Inspection(host, cut, new Random(index), index === 0).run());
  }
}

function there(host: CutHost, sizeBytes: number): Promised {
  return { stack: 'ext4', possible: sizes(host, sizeBytes), mayBeTorn: false };
}

function sizes(host: CutHost, ...sizesBytes: number[]): Set<string> {
  const sha256 = host.digestOf('ext4');
  return new Set(sizesBytes.map((sizeBytes) => keyOf({ sha256, sizeBytes, mark: undefined })));
}

async function flush(host: CutHost, id: string, what: readonly string[]): Promise<void> {
  const slot = join(host.clonesDir, id);
  if (what.includes('small files')) {
    for (const path of await walk(slot))
      if (!path.endsWith('.ext4') && !path.endsWith('.unsettled')) await flushFile(path);
  }
  if (what.includes('slot folder')) await flushFile(slot);
}

async function flushFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  await file.sync();
  await file.close();
}

/** As a careless builder does it: the length first, then the data, then the name. */
async function replaceUnflushed(host: CutHost): Promise<void> {
  const temporary = join(host.path, 'changing.new');
  const file = await open(temporary, 'w');
  await file.truncate(200 * KiB);
  await file.write(pattern(200 * KiB, 77));
  await file.close();
  // Over an existing name ext4 would flush it all the same.
  await rm(host.templatePath('changing'));
  await rename(temporary, host.templatePath('changing'));
}
