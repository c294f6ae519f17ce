// Copied slots whose data has not reached the disk.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { holdLease } from '../fixtures/lease.js';
import { rejection } from '../fixtures/rejection.js';

const WRITABLE = { writable: true } as const;
const ANOTHER_BOOT = '00000000-0000-4000-8000-000000000000';

describeEachFilesystem(
  ({ path, reflinks }) => {
    let host: Host;
    let mark: string;

    beforeEach(async () => {
      host = await Host.in(path);
      await host.addTemplate('debian', pattern(4 * MiB));
      mark = join(host.slot('vm-1').path, 'rootfs.ext4.unsettled');
    });

    /** A slot as a process leaves it that is killed before the flush. */
    async function leaveUnsettled(boot: string): Promise<void> {
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      await host.registry.drain();
      await writeFile(mark, boot);
    }

    const thisBoot = async () => (await readFile('/proc/sys/kernel/random/boot_id', 'ascii')).trim();

    test('the mark goes when the data was flushed; a durable slot never has one', async () => {
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      await host.registry.drain();
      expect(await exists(mark)).toBe(false);
      await host.registry.release('vm-1');
      await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, durable: true });
      expect(await exists(mark)).toBe(false);
    });

    test('close() waits for the flush', async () => {
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      await host.registry.close();
      expect(await exists(mark)).toBe(false);
    });

    test.each([
      ['of another boot', ANOTHER_BOOT],
      ['of another boot as another program writes it', `${ANOTHER_BOOT.toUpperCase()}\r\n`],
      ['emptied', ''],
      ['of zeros', '\0'.repeat(36)],
    ])('a mark that is %s: the slot is torn', async (_what, contents) => {
      await leaveUnsettled(contents);
      await rejection(host.registry.cloneForVm('vm-1', 'debian', WRITABLE), 'SLOT_TORN');
      await rejection(host.registry.forkSlot('vm-1', 'vm-2'), 'SLOT_TORN');
      await rejection(host.registry.exportTo('vm-1', join(host.clonesDir, '../jailed')), 'SLOT_TORN');
      expect(await exists(host.slot('vm-2').path)).toBe(false);
      expect((await host.registry.recover()).tornSlots).toEqual(['vm-1']);
      expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: false });
    });

    test.each([
      ['other text', (file: string) => writeFile(file, 'yes')],
      ['half an id', (file: string) => writeFile(file, ANOTHER_BOOT.slice(0, 20))],
      ['too long', (file: string) => writeFile(file, ANOTHER_BOOT.repeat(200))],
      ['a folder', (file: string) => rm(file).then(() => mkdir(file))],
    ])('a mark that is %s is nobody’s word: the slot is not handed out, and stays', async (_what, damage) => {
      await leaveUnsettled('');
      await damage(mark);
      const { registry } = host;
      for (const call of [
        () => registry.cloneForVm('vm-1', 'debian', WRITABLE),
        () => registry.forkSlot('vm-1', 'vm-2'),
        () => registry.snapshotSlot('vm-1', 'paused'),
        () => registry.exportTo('vm-1', join(host.clonesDir, '../jailed')),
      ])
        expect(await rejection(call(), 'STAMP_INVALID')).toMatchObject({ path: mark });
      expect(await registry.recover()).toMatchObject({ tornSlots: [], unknown: ['vm-1'] });
      expect((await registry.slot('vm-1'))?.health).toBe('unknown');
      await rm(mark, { recursive: true });
      expect(await registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: true });
    });

    test('a mark of this boot in upper case, with a line’s end, counts, and goes with the flush', async () => {
      await leaveUnsettled(`${(await thisBoot()).toUpperCase()}\r\n`);
      expect((await host.registry.recover()).tornSlots).toEqual([]);
      expect(await exists(mark)).toBe(false);
    });

    test('recover() flushes what a killed process left in this boot', async () => {
      await leaveUnsettled(await thisBoot());
      expect((await host.registry.recover()).tornSlots).toEqual([]);
      expect(await exists(mark)).toBe(false);
      expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: true });
    });

    test('recover() leaves one on which a VMM holds a lease to the next', async () => {
      await leaveUnsettled(await thisBoot());
      const end = await holdLease(host.slot('vm-1').image);
      expect((await host.registry.recover()).tornSlots).toEqual([]);
      expect(await exists(mark)).toBe(true);
      await end();
      await host.registry.recover();
      expect(await exists(mark)).toBe(false);
    });

    test('a slot of this boot is handed out, and flushed then', async () => {
      await leaveUnsettled(await thisBoot());
      expect(await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).toMatchObject({ reused: true });
      await host.registry.drain();
      expect(await exists(mark)).toBe(false);
    });

    test('asked for with durable, it is flushed before the call resolves', async () => {
      await leaveUnsettled(await thisBoot());
      await host.registry.cloneForVm('vm-1', 'debian', { ...WRITABLE, durable: true });
      expect(await exists(mark)).toBe(false);
    });

    if (!reflinks)
      test('a ready slot of the pool is flushed while it is made', async () => {
        await host.registry.prewarm('debian', { count: 1 });
        const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
        expect(clone).toMatchObject({ pooled: true, strategy: 'copy' });
        expect(await exists(mark)).toBe(false);
      });
  },
  ({ name }) => ['XFS', 'XFS without reflink', 'ext4', 'tmpfs'].includes(name),
);
