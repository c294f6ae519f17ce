// From what was asked for to what the addon does in one trip.
import type { StackName } from './catalog.js';
import type { ParsedCloneOptions } from './clone-options.js';
import { shrinkRefused } from './grow.js';
import type { Identity } from './identity.js';
import { type NativeSource, RUNG, type SlotPlan } from './native.js';
import type { PoolKey } from './pool.js';
import { companionsOf } from './stamps.js';
import type { Template } from './templates.js';
import type { VmId } from './vm-id.js';
import type { Attempt } from './vm-rootfs.js';

export interface CloneRequest extends ParsedCloneOptions {
  readonly vm: VmId;
  readonly stack: StackName;
  readonly templatePath: string;
}

/** Where a clone's bytes come from. */
export interface Origin {
  readonly source: NativeSource;
  readonly identity: Identity;
  /** A sealed image has its final size; a template may have to be grown to it. */
  readonly sealed: boolean;
}

/** All that a clone needs to be one trip. */
export interface Warm {
  readonly request: CloneRequest;
  readonly template: Template;
  readonly origin: Origin;
  readonly plan: SlotPlan;
  /** The size to grow a clone of the template to. */
  readonly growTo: number | undefined;
  readonly attempts: readonly Attempt[];
}

export function planFor(
  request: CloneRequest,
  template: Template,
  origin: Origin,
  grown: number | undefined,
  ready: string | undefined,
): SlotPlan {
  const { vm, owner, mode, durable, writable } = request;
  const mayShareInode = writable !== true && !origin.sealed && grown === undefined;
  const growsHere = !origin.sealed && grown !== undefined;
  const rawId = vm.raw === vm.safe ? undefined : vm.raw;
  return {
    slot: vm.safe,
    companions: companionsOf({ sha256: template.sha256, sizeStamp: grown, rawId }),
    expected: origin.identity,
    templatePath: template.path,
    templateExpected: template.identity,
    rungs: RUNG.reflink | (mayShareInode ? RUNG.hardlink : 0) | RUNG.copy,
    // What is grown first gets them when that is done.
    ...(growsHere ? {} : { owner, mode }),
    durable,
    ready,
    rawId,
  };
}

export function poolKey(request: CloneRequest, template: Template): PoolKey {
  const { owner, mode } = request;
  return { template, grownTo: growsTo(request, template), owner, mode };
}

/** The size to grow a new clone to; undefined if it stays as long as the template. Throws `SHRINK_REFUSED`. */
export function growsTo(request: CloneRequest, template: Template): number | undefined {
  const target = request.sizeBytes;
  const { sizeBytes } = template.identity;
  if (target !== undefined && target < sizeBytes) throw shrinkRefused(template.path, sizeBytes, target);
  return target === sizeBytes ? undefined : target;
}
