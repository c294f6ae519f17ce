// Finds what a clone is made from, and does the work that is needed once per template: its digest and its sealed image.
// After that, every clone is one trip to another thread.

import type { Attempt } from '../addon/attempts.js';
import { native } from '../addon/native.js';
import { refuseOtherSpelling, stackNotFoundError } from '../catalog/catalog.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import { hashUnchanged, isOutdated, type Template, templateChangedError } from '../catalog/template.js';
import type { DigestOf, Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import type { CloneSource } from '../sealed/clone-source.js';
import { isSealedImage } from '../sealed/open-images.js';
import type { SealedImages } from '../sealed/sealed-images.js';
import { rawIdToStore } from '../slot/vm-id.js';
import { errnoName, failedWith, isFull } from '../system/errors.js';
import {
  ClonePlans,
  type CloneRequest,
  type CloneRound,
  growsTo,
  type PreparedClone,
  poolKey,
} from './clone-plan.js';
import type { Pool } from './pool.js';

const NONE: readonly Attempt[] = [];

// Each is lost to a process that removes the template and puts it back at the same moment.
const ROUNDS = 8;

/** What must be done before a clone can be one trip: look at the template, or seal it. */
export type MissingStep = 'template-changed' | 'unsealed';

export class CloneSources {
  readonly #folder: ManagedFolder;
  readonly #templates: Templates;
  readonly #sealed: SealedImages | undefined;
  readonly #pool: Pool;
  readonly #stacks: StacksByDigest;
  readonly #plans: ClonePlans;

  constructor(
    folder: ManagedFolder,
    templates: Templates,
    stacks: StacksByDigest,
    sealed: SealedImages | undefined,
    pool: Pool,
  ) {
    this.#folder = folder;
    this.#stacks = stacks;
    this.#plans = new ClonePlans(stacks);
    this.#templates = templates;
    this.#sealed = sealed;
    this.#pool = pool;
  }

  /**
   * Collects what the request needs from memory. Do not await anything between this and the call into the addon, so
   * that no descriptor is closed in between. After a failed attempt to seal, the clone comes from the template itself.
   */
  prepare(round: CloneRound): PreparedClone | MissingStep {
    const { request, fromPool, sealFailure } = round;
    const remembered = this.#templates.remembered(request.templatePath);
    if (remembered === undefined) return 'template-changed';
    const { template, source } = remembered;
    const grown = growsTo(request, template);
    let cloneSource: CloneSource | undefined;
    const sealed = this.#sealsFor(round);
    if (sealed !== undefined) {
      cloneSource = sealed.images.open.get(template.sha256, grown ?? template.identity.sizeBytes);
      if (cloneSource === undefined) return 'unsealed';
    } else {
      cloneSource = { source, identity: template.identity, sealed: false };
    }
    const { vm } = request;
    return {
      request,
      template,
      cloneSource,
      plan: this.#plans.for(request, template, cloneSource, grown),
      rawId: rawIdToStore(vm),
      ready: fromPool && !this.#pool.isEmpty ? this.#pool.take(poolKey(request, template)) : undefined,
      growTo: cloneSource.sealed ? undefined : grown,
      attempts: sealFailure === undefined ? NONE : [sealFailure],
    };
  }

  /**
   * Opens what was closed since it was looked at, as when more templates are cloned at once than can be open. Call
   * {@link prepare} at once afterwards: it returns what is missing. Hashes and seals nothing, so it may be called in a
   * turn.
   */
  async reopen(round: CloneRound): Promise<void> {
    const { folder, request } = round;
    const template = this.#templates.recalled(request.templatePath);
    if (template === undefined) return;
    const images = this.#sealsFor(round)?.images;
    const sizeBytes = finalBytes(request, template);
    const image =
      images?.open.get(template.sha256, sizeBytes) === undefined
        ? await images?.find(folder, template.sha256, sizeBytes)
        : undefined;
    // Kept only after this, so that other clones cannot close it meanwhile.
    await this.#templates.reopen(template.path).finally(() => {
      if (image === undefined) return;
      if (images?.open.get(template.sha256, sizeBytes) === undefined)
        images?.open.add(template.sha256, sizeBytes, image);
      else native().dispose(image.source);
    });
  }

  /** Undefined if the clone comes from the template itself. */
  #sealsFor({ folder, sealFailure }: CloneRound): SealedImages | undefined {
    return folder.reflinks !== false && sealFailure === undefined ? this.#sealed : undefined;
  }

  /** Whether the request can be prepared from memory, apart from sealing. */
  isKnown(request: CloneRequest): boolean {
    const remembered = this.#templates.remembered(request.templatePath);
    return remembered !== undefined && this.#stacks.isKnown(remembered.template.sha256);
  }

  /** Rejects with `STACK_NOT_FOUND`, and like {@link Templates.look}. */
  async look(request: CloneRequest): Promise<Template> {
    const { stack, templatePath, signal } = request;
    const [template] = await Promise.all([
      this.#templates.look(templatePath, signal, this.#digestOf(request)),
      refuseOtherSpelling(templatePath),
    ]);
    if (template !== undefined) {
      await this.#folder.use(() => this.#stacks.record(template.sha256, stack));
      return template;
    }
    throw stackNotFoundError(stack, templatePath);
  }

  /** Looks at the template and seals it where possible, so that the next clone is one trip. */
  async warmUp(request: CloneRequest, pack = false): Promise<Template> {
    for (let round = 1; ; round++) {
      const template = await this.look(request);
      const sizeBytes = finalBytes(request, template);
      if (this.#sealed === undefined || !(await this.#folder.reflinks())) return template;
      try {
        if (pack) await this.#sealed.pack(template, sizeBytes, request.signal);
        else await this.#sealed.ensure(template, sizeBytes, request.signal);
        return template;
      } catch (error) {
        // It was removed since the look. The next look reports that, unless it is back.
        if (!isMissingAt(error, template.path)) throw error;
        if (round === ROUNDS) throw templateChangedError(template.path, 'keeps being replaced');
      }
    }
  }

  /**
   * Seals the template at the requested size, where that helps. Returns the reason if there is no space, and
   * `template-changed` if the template was replaced or removed meanwhile.
   */
  async seal(request: CloneRequest, template: Template): Promise<Attempt | 'template-changed' | undefined> {
    try {
      const reflinks = await this.#folder.reflinks();
      if (reflinks === undefined) return { strategy: 'seal', code: 'ENOSPC' };
      if (reflinks) await this.#sealed?.ensure(template, finalBytes(request, template), request.signal);
      return undefined;
    } catch (error) {
      if (isFull(error)) return { strategy: 'seal', code: errnoName(error.errno) };
      // It may be back again.
      const wasMissing = isMissingAt(error, template.path);
      if (wasMissing || (await isOutdated(template))) return 'template-changed';
      throw error;
    }
  }

  /** The clone source changed: a sealed image is made again, a template is looked at again. */
  sourceChanged({ cloneSource, template }: PreparedClone): MissingStep {
    if (!cloneSource.sealed) return 'template-changed';
    this.#sealed?.images.open.close(template.sha256, cloneSource.identity.sizeBytes);
    return 'unsealed';
  }

  /** How many links the source had after the clone. */
  sourceSeen({ cloneSource, template }: PreparedClone, now: CloneSource['identity']): void {
    // This clone is correct, but the next one should not come from an image that was removed.
    if (now.links === 0) this.#sealed?.images.open.close(template.sha256, cloneSource.identity.sizeBytes);
  }

  /** After a clone by reflink: what it cost counts. */
  cloned({ cloneSource }: PreparedClone): void {
    if (isSealedImage(cloneSource)) this.#sealed?.packer.cloned(cloneSource);
  }

  /** Returns a ready slot that was not taken. If it is gone, the next caller that takes it finds out. */
  giveBack({ request, template, ready }: PreparedClone): void {
    if (ready !== undefined) this.#pool.giveBack(poolKey(request, template), ready);
  }

  /** The slot was made in another way than by taking the ready one. */
  madeAnew({ request, template, ready }: PreparedClone): void {
    if (ready !== undefined) this.#pool.missed(poolKey(request, template));
  }

  /** Sealing a new template also gives its digest. For a request that will be refused, nothing is sealed. */
  #digestOf({ sizeBytes }: CloneRequest): DigestOf {
    const sealed = this.#sealed;
    return async (task, path, opened) => {
      const refused = sizeBytes !== undefined && sizeBytes < opened.info.identity.sizeBytes;
      if (sealed !== undefined && !refused) {
        try {
          if (await this.#folder.reflinks()) return await sealed.digestBySealing(task, path, opened);
        } catch (error) {
          if (!isFull(error)) throw error;
        }
      }
      return hashUnchanged(task, path, opened);
    };
  }
}

function isMissingAt(error: unknown, path: string): boolean {
  return failedWith(error, 'ENOENT') && (error as { path?: string }).path === path;
}

/** How long the clone will be. Throws `SHRINK_REFUSED`. */
function finalBytes(request: CloneRequest, template: Template): number {
  return growsTo(request, template) ?? template.identity.sizeBytes;
}
