// A VM that was killed leaves a journal that somebody must replay: who makes a template of its disk, or grows a clone
// of one.
import { copyFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { hashFile } from '../../src/index.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { faultsOf, readInside, run } from '../fixtures/images.js';
import { bootsVms, hostWithGuest, STACK, TEMPLATE_BYTES, TIMEOUT } from './guest.js';
import { boot, Vm } from './vm.js';

const XFS = filesystemNamed('XFS');
bootsVms(XFS);

test(
  'the disk of a killed VM, committed, or as a template that is grown: clean, whole, and boots',
  TIMEOUT,
  async () => {
    const host = await hostWithGuest(XFS);
    const { registry } = host;
    const vm = new Vm(
      await registry.cloneForVm('vm', STACK, { writable: true }),
      // One file is flushed, so that it is in the journal; nothing brings the journal's contents to where they belong.
      `echo 0 >/proc/sys/vm/dirty_writeback_centisecs
     echo 'in the journal' | dd of=/marker conv=fsync 2>/dev/null
     echo written; read -r word`,
    );
    await vm.printed('written');
    await vm.kill();
    const { image } = host.slot('vm');
    expect((await run('dumpe2fs', ['-h', image])).stdout).toMatch(/needs_recovery/);
    expect(await readInside(image, '/marker')).toBe('');
    const left = await hashFile(image);

    // As it lies, and as the library would never publish it.
    const dirty = await host.placeTemplate('dirty', (path) => copyFile(image, path));
    const grown = await registry.cloneForVmWithSize('grown', 'dirty', 4 * TEMPLATE_BYTES);
    expect(await faultsOf(grown.path)).toBe('');
    expect(await readInside(grown.path, '/marker')).toBe('in the journal\n');
    expect(await hashFile(dirty)).toBe(left);

    await registry.commitSlot('vm', 'golden');
    expect(await hashFile(image)).toBe(left);
    expect(await faultsOf(host.template('golden'))).toBe('');
    const golden = await registry.cloneForVm('golden', 'golden', { writable: true });

    const look = 'cat /marker; touch /works';
    expect(await Promise.all([boot(grown, look), boot(golden, look)])).toEqual([
      'in the journal',
      'in the journal',
    ]);
    for (const { path } of [grown, golden]) expect(await faultsOf(path)).toBe('');
  },
);
