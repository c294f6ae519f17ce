// Clones that take more than one trip: an image is staged, then copied or grown, and published as a slot or as a ready
// one for the pool.

import { basename } from 'node:path';
import { inspectSlot, native, type Staged } from '../addon/native.js';
import { templateChangedError } from '../catalog/template.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { type GrowPrograms, growImage } from '../image/grow.js';
import { setOwnerAndMode } from '../image/owner-and-mode.js';
import { copyImage } from '../image/staged-copy.js';
import { rawIdFile } from '../slot/stamps.js';
import { unsettledFile } from '../slot/unsettled.js';
import { inTurn } from '../system/long-work.js';
import { Task } from '../system/task.js';
import type { PreparedClone } from './clone-plan.js';
import type { CloneSources, MissingStep } from './clone-sources.js';
import type { ExistingSlots } from './existing-slots.js';
import { type PoolKey, readyName } from './pool-files.js';
import { builtRootfs, describeClone, type VmRootfs } from './vm-rootfs.js';

export class StagedClones {
  readonly #folder: ManagedFolder;
  readonly #sources: CloneSources;
  readonly #existing: ExistingSlots;
  readonly #programs: GrowPrograms;
  #readyMade = 0;

  constructor(folder: ManagedFolder, sources: CloneSources, existing: ExistingSlots, programs: GrowPrograms) {
    this.#folder = folder;
    this.#sources = sources;
    this.#existing = existing;
    this.#programs = programs;
  }

  /** Publishes it as the slot of the request. */
  async finish(
    folder: OpenFolder,
    prepared: PreparedClone,
    outcome: Staged,
  ): Promise<VmRootfs | MissingStep | 'again'> {
    const { request, template, cloneSource, growTo, plan, rawId } = prepared;
    const slot = request.vm.safe;
    const what = describeClone(this.#folder, request);
    const task = new Task(what, request.signal);
    const { staged } = outcome;
    try {
      await this.#complete(task, prepared, outcome);
      const sizeBytes = growTo ?? cloneSource.identity.sizeBytes;
      const isCopy = outcome.status === 'copy-needed' && !request.durable;
      const mark = isCopy ? unsettledFile() : [];
      const sidecars = [...plan.slotPlan.sidecars, ...rawIdFile(rawId), ...mark];
      const published = await inTurn(task, () =>
        native().publishSlot(staged, 'top', slot, sizeBytes, sidecars),
      );
      if (published === 'exists') {
        // Another caller was faster. Use its slot now: another round would copy everything again.
        const state = await inspectSlot(folder.handle, slot);
        return await this.#existing.reuse(what, folder, request, template, state);
      }
      if (published === 'source-changed') return this.#sources.sourceChanged(prepared);
      if (isCopy) this.#folder.flushInBackground(slot);
      return builtRootfs(this.#folder, prepared, outcome);
    } finally {
      await native().discardSlot(staged);
    }
  }

  /** Makes a ready slot for the pool, and returns its name. Undefined if what it is made of has changed meanwhile. */
  async publishReady(
    folder: OpenFolder,
    prepared: PreparedClone,
    key: PoolKey,
    prefix: string,
  ): Promise<string | undefined> {
    const { template, cloneSource, growTo, plan } = prepared;
    // The name promises this digest.
    if (template.sha256 !== key.template.sha256) throw templateChangedError(template.path, 'changed');
    const outcome = await native().stageImage(folder.handle, cloneSource.source, plan.slotPlan);
    const { staged, strategy } = outcome;
    try {
      const task = new Task(`making a ready slot of ${template.path}`, prepared.request.signal);
      await this.#complete(task, prepared, outcome);
      const name = readyName(prefix, strategy, `${basename(folder.sessionPath)}-${this.#readyMade++}`);
      const sizeBytes = growTo ?? cloneSource.identity.sizeBytes;
      // A ready slot waits for its VM, so there is time to flush a copy now. The addon does so because there is no
      // mark.
      const published = await inTurn(task, () =>
        native().publishSlot(staged, 'pool', name, sizeBytes, plan.slotPlan.sidecars),
      );
      if (published === 'created') return name;
      // Another process removed the sealed image. Or FUSE reported an older ctime first.
      this.#sources.sourceChanged(prepared);
      return undefined;
    } finally {
      await native().discardSlot(staged);
    }
  }

  /** Completes a staged image: copy, grow, owner and mode. */
  async #complete(task: Task, prepared: PreparedClone, { status, staged, imagePath }: Staged): Promise<void> {
    const { request, growTo } = prepared;
    if (status === 'copy-needed') await copyImage(task, staged);
    if (growTo !== undefined) {
      await growImage(imagePath, growTo, this.#programs, task.signal, request.templatePath);
      await setOwnerAndMode(imagePath, request);
    }
    task.checkAborted();
  }
}
