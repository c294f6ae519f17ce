import type { Attempt, DerivedRootfs, VmRootfs } from '../index.js';
import { details } from './output.js';
import { formatSize } from './sizes.js';

/** A clone, told to people. */
export function cloneText(clone: VmRootfs): string {
  const how = clone.reused ? 'was there already' : clone.pooled ? 'taken from the pool' : 'made now';
  const shared = clone.sharesTemplateInode ? ', it is the template itself: for read-only guests' : '';
  return details({
    VM: clone.vmId,
    Stack: clone.stack,
    Path: clone.path,
    Size: formatSize(clone.sizeBytes),
    How: `${clone.strategy}, ${how}${shared}`,
    'SHA-256': clone.sourceSha256,
    'Tried first': leftText(clone.attempts),
  });
}

/** A clone of another clone or of a snapshot. */
export function derivedText(clone: DerivedRootfs): string {
  return details({
    VM: clone.vmId,
    Stack: clone.stack,
    Path: clone.path,
    Size: formatSize(clone.sizeBytes),
    How: clone.strategy,
    Extents: clone.extents === undefined ? undefined : `${clone.extents}, which made it slow`,
    'Tried first': leftText(clone.attempts),
  });
}

/** The ways that were tried before. */
export function leftText(attempts: readonly Attempt[]): string | undefined {
  return attempts.map(({ strategy, code }) => `${strategy} (${code})`).join(', ') || undefined;
}
