// What must hold after a cut, whatever was under way.
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { RootfsError, RootfsRegistry } from '../../src/index.js';
import { ABSENT, type DiskState, keyOf, readState } from '../fixtures/disk-states.js';
import { exists, sha256Of, walk } from '../fixtures/files.js';
import { GROWN_BYTES } from '../fixtures/growable.js';
import type { Random } from '../fixtures/random.js';
import type { Cut } from './history.js';
import type { CutHost } from './host.js';
import { expectThings } from './promised-things.js';
import type { Promised } from './promises.js';

/**
 * What the next clone may say if the template was put in its place unflushed. STACK_NOT_FOUND: btrfs can lose the name
 * of a file that was renamed over another one of a flushed folder, when any other file is flushed before the cut.
 * TEMPLATE_INVALID: or it keeps the name, and none of the bytes.
 */
const LOST_TEMPLATE = ['STAMP_MISMATCH', 'STACK_NOT_FOUND', 'TEMPLATE_INVALID'];

/** For the first process after the cut. */
export class Inspection {
  readonly #registry: RootfsRegistry;

  constructor(
    readonly host: CutHost,
    readonly cut: Cut,
    readonly random: Random,
    /** Otherwise the next calls come first. */
    readonly recoverFirst = random.chance(0.5),
  ) {
    this.#registry = new RootfsRegistry(host.config);
  }

  async run(): Promise<void> {
    try {
      await this.#sealedImagesAreWhole();
      if (!this.recoverFirst) await this.#nextCallsAreRight();
      const { unstamped } = await this.#registry.recover();
      // An image whose stamps are lost might be anybody's: who knows that all folders here are slots releases it.
      for (const slot of unstamped) await this.#registry.release(slot);
      await this.#slotsAreAsPromised();
      await expectThings(this.host, this.#registry, this.cut.things);
      await this.#digestsOfTemplatesAreRight();
      await this.#everyIdCanBeCloned();
      await this.#readySlotsAreRight();
      await this.#nothingIsLeft();
    } finally {
      await this.#registry.close();
    }
  }

  async #sealedImagesAreWhole(): Promise<void> {
    const sealed = join(this.host.clonesDir, '.microvm-rootfs/sealed');
    if (!(await exists(sealed))) return;
    for (const name of await readdir(sealed)) {
      const [template = '', sizeBytes] = name.split('-');
      const expected = this.host.pristine.get(template, Number(sizeBytes))?.digest;
      expect(expected, `sealed image ${name} is of a template that there was`).toBeDefined();
      // A sealed reflink is not flushed. One that is missing or short after the cut differs from its record, and is
      // made again at the next need.
      const image = join(sealed, name, 'rootfs.ext4');
      const found = await stat(image).catch(() => undefined);
      if (found?.size === Number(sizeBytes))
        expect(await sha256Of(image), `sealed image ${name}`).toBe(expected);
    }
  }

  /** Before anybody has called recover(): right, or refused as torn where that may be. */
  async #nextCallsAreRight(): Promise<void> {
    for (const [safeId, { stack, possible, mayBeTorn }] of this.#slots()) {
      if (stack === 'changing' || !(await this.#isThere(safeId))) continue;
      const outcome = await this.#clone(safeId, stack);
      if (await this.#isBack(safeId, possible, outcome)) continue;
      if (outcome instanceof RootfsError) {
        expect(outcome.code, outcome.message).toBe('SLOT_TORN');
        expect(mayBeTorn, `${outcome.message} (promised to be durable)`).toBe(true);
      } else {
        expect(await this.#stateOf(safeId), `${safeId}, which was handed out`).toBeDefined();
      }
    }
  }

  /** A release that was not flushed can be undone by the cut: then the slot is whole, and of its earlier stack. */
  async #isBack(safeId: string, possible: ReadonlySet<string>, outcome: unknown): Promise<boolean> {
    if (!(outcome instanceof RootfsError) || outcome.code !== 'STAMP_MISMATCH') return false;
    const state = await this.#stateNowOrBefore(safeId);
    expect(state, `${safeId}: ${outcome.message}`).toBeDefined();
    expect([...possible], outcome.message).toContain(keyOf(state as DiskState));
    return true;
  }

  async #slotsAreAsPromised(): Promise<void> {
    for (const [safeId, { possible, mayBeTorn }] of this.#slots()) {
      const there = await this.#isThere(safeId);
      if (!there && mayBeTorn) continue; // recover() has removed what was torn
      let state = there ? await this.#stateNowOrBefore(safeId) : undefined;
      if (there && state === undefined && mayBeTorn) state = await this.#finishGrow(safeId);
      if (there) expect(state, `${safeId} is whole after recover()`).toBeDefined();
      expect([...possible], safeId).toContain(state === undefined ? ABSENT : keyOf(state));
    }
  }

  /**
   * What btrfs can leave of a grown slot that was not durable, if others flush its image and its stamp but not its size
   * stamp: a disk that recover() does not throw away, since a VM may have written to it. It is not handed out until its
   * size is asked for.
   */
  async #finishGrow(safeId: string): Promise<DiskState | undefined> {
    const sizeBytes = GROWN_BYTES;
    if (await exists(`${this.host.image(safeId)}.size`)) return undefined;
    const outcome = await this.#clone(safeId, 'ext4');
    expect(outcome, safeId).toMatchObject({
      code: 'SLOT_TORN',
      message: expect.stringContaining(`ask for ${sizeBytes} bytes`),
    });
    await this.#registry.cloneForVmWithSize(rawIdOf(safeId), 'ext4', sizeBytes, { writable: true });
    return this.#stateOf(safeId);
  }

  async #digestsOfTemplatesAreRight(): Promise<void> {
    for (const { name, sha256, templatePath } of await this.#registry.stacks()) {
      expect(sha256, `the digest of ${name}`).toBe(await sha256Of(templatePath));
    }
  }

  async #everyIdCanBeCloned(): Promise<void> {
    for (const [safeId, { stack, possible }] of this.#slots()) {
      let outcome = await this.#clone(safeId, stack);
      if (stack !== 'changing' && (await this.#isBack(safeId, possible, outcome))) {
        await this.#registry.release(rawIdOf(safeId));
        outcome = await this.#clone(safeId, stack);
      }
      if (outcome instanceof RootfsError) {
        if (stack === 'changing' && LOST_TEMPLATE.includes(outcome.code)) continue;
        throw outcome;
      }
      if (stack === 'changing') continue; // an unflushed template can hold anything by now
      expect(await this.#stateOf(safeId), `${safeId}, cloned after recover()`).toBeDefined();
    }
  }

  async #readySlotsAreRight(): Promise<void> {
    if (this.random.chance(0.7)) return;
    await this.#registry.prewarm('ext4', { count: 2 });
    for (const id of ['pooled-1', 'pooled-2']) {
      await this.#registry.cloneForVm(id, 'ext4', { writable: true });
      expect(await this.#stateOf(id, 'ext4'), `${id}, from the pool`).toBeDefined();
    }
  }

  async #nothingIsLeft(): Promise<void> {
    await this.#registry.drain();
    const { clonesDir, templateDir } = this.host;
    for (const folder of [clonesDir, templateDir, join(clonesDir, '.microvm-rootfs/snapshots')]) {
      const state = join(folder, '.microvm-rootfs');
      expect(await walk(join(state, 'trash')), `trash of ${folder}`).toEqual([]);
      const sessions = await readdir(join(state, 'staging')).catch(() => []);
      expect(sessions.length, 'no staging folder but that of this process').toBeLessThanOrEqual(1);
    }
  }

  /** btrfs can bring back the name of a folder and nothing that was in it, which is as good as none. */
  async #isThere(safeId: string): Promise<boolean> {
    const names = await readdir(join(this.host.clonesDir, safeId)).catch(() => []);
    return names.length > 0;
  }

  #slots(): [string, Promised][] {
    return [...this.cut.promised];
  }

  async #clone(safeId: string, stack: string): Promise<RootfsError | unknown> {
    return this.#registry
      .cloneForVm(rawIdOf(safeId), stack, stack === 'changing' ? {} : { writable: true })
      .catch((error) => error);
  }

  /** Of the stack that it is of now, or, if its release was undone, of another. */
  async #stateNowOrBefore(safeId: string): Promise<DiskState | undefined> {
    return (
      (await this.#stateOf(safeId)) ??
      (await this.#stateOf(safeId, 'ext4')) ??
      (await this.#stateOf(safeId, 'scattered'))
    );
  }

  /** Undefined unless stamps and image agree, byte by byte. */
  async #stateOf(
    safeId: string,
    stack = this.cut.promised.get(safeId)?.stack ?? '',
  ): Promise<DiskState | undefined> {
    const image = this.host.image(safeId);
    const stamp = await readFile(`${image}.sha256`, 'utf8').catch(() => '');
    const state = await readState(image, stamp.trim(), this.host.pristine, this.host.markOffset(stack));
    if (state === undefined) return undefined;
    const grown = stack === 'ext4' && state.sizeBytes !== this.host.templateBytes('ext4');
    const sizeStamp = await readFile(`${image}.size`, 'utf8').catch(() => undefined);
    return sizeStamp === (grown ? `${state.sizeBytes}` : undefined) ? state : undefined;
  }
}

/** Which a slot's folder name does not tell. */
function rawIdOf(safeId: string): string {
  return safeId.replace(/^vm_3$/, 'vm/3').replace(/^vm_4$/, 'vm:4');
}
