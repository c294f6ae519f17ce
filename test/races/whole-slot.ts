import { readFile } from 'node:fs/promises';
import { expect } from 'vitest';
import { type DiskState, type PristineImages, readState } from '../fixtures/disk-states.js';
import { type Growable, TEMPLATE_BYTES } from '../fixtures/growable.js';
import type { Host } from '../fixtures/host.js';

/** A slot that nobody is changing: stamps, raw id and every byte of its image must agree. */
export async function readWholeSlot(
  host: Host,
  name: string,
  pristine: PristineImages,
  { markOffset }: Growable,
): Promise<DiskState & { readonly rawId: string }> {
  const slot = host.slot(name);
  const optional = (path: string) => readFile(path, 'utf8').catch(() => undefined);
  const state = await readState(slot.image, await readFile(slot.stamp, 'utf8'), pristine, markOffset);
  if (state === undefined) return expect.fail(`the image of ${name} is not what its stamp says`);
  const grown = state.sizeBytes === TEMPLATE_BYTES ? undefined : `${state.sizeBytes}`;
  expect(await optional(slot.sizeStamp), `size stamp of ${name}`).toBe(grown);
  expect(await optional(slot.newSizeStamp), `pending size stamp of ${name}`).toBeUndefined();
  return { ...state, rawId: (await optional(slot.rawId)) ?? name };
}
