// Turns a request into a plan that the addon carries out in one trip to another thread.

import type { Attempt } from '../addon/attempts.js';
import { type NativePlan, native, RUNG, type SlotPlan } from '../addon/native.js';
import type { StackName } from '../catalog/stack-name.js';
import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { Template } from '../catalog/template.js';
import type { OpenFolder } from '../folder/open-folder.js';
import { shrinkRefusedError } from '../image/grow.js';
import { type OwnerAndMode, sameOwnerAndMode } from '../image/owner-and-mode.js';
import type { CloneSource } from '../sealed/clone-source.js';
import { sidecarsOf } from '../slot/stamps.js';
import type { VmId } from '../slot/vm-id.js';
import type { ParsedCloneOptions } from './clone-options.js';
import type { PoolKey } from './pool-files.js';

export interface CloneRequest extends ParsedCloneOptions {
  readonly vm: VmId;
  readonly stack: StackName;
  readonly templatePath: string;
}

/** One try at a clone. */
export interface CloneRound {
  readonly folder: OpenFolder;
  readonly request: CloneRequest;
  /** Whether a ready slot will do. */
  readonly fromPool: boolean;
  /** Why the template could not be sealed: then the clone comes from the template itself. */
  readonly sealFailure: Attempt | undefined;
}

/** Ready slots are not flushed, so they never serve a `durable` clone. */
export function roundOf(folder: OpenFolder, request: CloneRequest, sealFailure?: Attempt): CloneRound {
  return { folder, request, fromPool: !request.durable, sealFailure };
}

/** Everything that a clone needs for one trip. */
export interface PreparedClone {
  readonly request: CloneRequest;
  readonly template: Template;
  readonly cloneSource: CloneSource;
  readonly plan: ClonePlan;
  /** The raw id, if it differs from the slot's name; kept in the slot. */
  readonly rawId: string | undefined;
  /** A ready slot in the pool to take instead of building one. */
  readonly ready: string | undefined;
  /** The size to grow a clone of the template to. */
  readonly growTo: number | undefined;
  readonly attempts: readonly Attempt[];
}

/** What all clones with the same options and template have in common. */
export interface ClonePlan extends OwnerAndMode {
  readonly slotPlan: SlotPlan;
  /** Stored in a file, if the digest alone does not identify the stack: see {@link StacksByDigest}. */
  readonly stack: string | undefined;
  readonly sizeStamp: number | undefined;
  /** `slotPlan` as the addon has read it. Reading it once saves a tenth of each clone's time. */
  readonly handle: NativePlan;
}

// Per template: combinations of size, owner and mode.
const PLANS_LIMIT = 64;

export class ClonePlans {
  readonly #of = new WeakMap<Template, ClonePlan[]>();

  readonly #stacks: StacksByDigest;

  constructor(stacks: StacksByDigest) {
    this.#stacks = stacks;
  }

  for(
    request: CloneRequest,
    template: Template,
    cloneSource: CloneSource,
    sizeStamp: number | undefined,
  ): ClonePlan {
    const { durable } = request;
    const stack = this.#stacks.stackToStore(template.sha256, request.stack);
    const mayShareInode = request.writable !== true && !cloneSource.sealed && sizeStamp === undefined;
    const rungs = RUNG.reflink | (mayShareInode ? RUNG.hardlink : 0) | RUNG.copy;
    const known = this.#of.get(template)?.find(
      (plan) =>
        // Identities are immutable, so comparing references is enough.
        plan.slotPlan.expected === cloneSource.identity &&
        plan.slotPlan.templateExpected === template.identity &&
        plan.slotPlan.rungs === rungs &&
        plan.slotPlan.durable === durable &&
        plan.sizeStamp === sizeStamp &&
        plan.stack === stack &&
        sameOwnerAndMode(plan, request),
    );
    return known ?? this.#add(request, template, cloneSource, { stack, sizeStamp }, rungs);
  }

  #add(
    { owner, mode, durable }: CloneRequest,
    template: Template,
    cloneSource: CloneSource,
    stored: Pick<ClonePlan, 'stack' | 'sizeStamp'>,
    rungs: number,
  ): ClonePlan {
    const growsHere = !cloneSource.sealed && stored.sizeStamp !== undefined;
    const slotPlan: SlotPlan = {
      sidecars: sidecarsOf({ sha256: template.sha256, ...stored }),
      expected: cloneSource.identity,
      templatePath: template.path,
      templateExpected: template.identity,
      rungs,
      // An image that has to grow gets them afterwards.
      ...(growsHere ? {} : { owner, mode }),
      durable,
    };
    const plan = { slotPlan, ...stored, owner, mode, handle: native().newPlan(slotPlan) };
    const current = (this.#of.get(template) ?? []).filter(
      ({ slotPlan }) => slotPlan.templateExpected === template.identity,
    );
    this.#of.set(template, [...current.slice(1 - PLANS_LIMIT), plan]);
    return plan;
  }
}

export function poolKey(request: CloneRequest, template: Template): PoolKey {
  const { owner, mode } = request;
  return { template, grownTo: growsTo(request, template), owner, mode };
}

/** The size to grow a new clone to; undefined if it keeps the template's size. Throws `SHRINK_REFUSED`. */
export function growsTo(request: CloneRequest, template: Template): number | undefined {
  const target = request.sizeBytes;
  const { sizeBytes } = template.identity;
  if (target !== undefined && target < sizeBytes) throw shrinkRefusedError(template.path, sizeBytes, target);
  return target === sizeBytes ? undefined : target;
}
