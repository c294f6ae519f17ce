// Publishes a VM's disk as a stack.
import type { Identity } from '../addon/identity.js';
import { isReplaced, type Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { type SlotImageRequest, withSlotImage } from '../slot/slot-image.js';
import type { VmId } from '../slot/vm-id.js';
import { failedWith, hasCode } from '../system/errors.js';
import { type PublishPrograms, type PublishRequest, publishStack } from './publish.js';
import type { PublishedStack } from './publish-options.js';

// Each is lost to a process that releases the slot and clones it again at the same moment.
const ROUNDS = 16;

export interface CommitRequest extends Pick<PublishRequest, 'name' | 'templatePath' | 'options'> {
  readonly vm: VmId;
  readonly slots: ManagedFolder;
  readonly slotImage: SlotImageRequest;
}

export async function commitSlot(
  catalog: ManagedFolder,
  templates: Templates,
  programs: PublishPrograms,
  { vm, slots, slotImage, ...stack }: CommitRequest,
): Promise<PublishedStack> {
  for (let round = 1; ; round++) {
    let image: { path: string; identity: Identity } | undefined;
    try {
      return await withSlotImage(slots, vm, slotImage, ({ path, identity, state }) => {
        image = { path, identity };
        return publishStack(catalog, templates, programs, {
          ...stack,
          source: path,
          expected: identity,
          // A disk that only its VM may read becomes no template that everybody may read.
          mode: ((state.image?.mode ?? 0) & 0o004) === 0 ? 0o400 : 0o444,
        });
      });
    } catch (error) {
      const mayBeGone = image !== undefined && isOfSource(error);
      // The next round looks at the slot that is there now, or finds none.
      if (!mayBeGone || round === ROUNDS || !(await isReplaced(image as NonNullable<typeof image>)))
        throw error;
    }
  }
}

/** Whether it is what publishing a file that was removed or replaced ends with. */
function isOfSource(error: unknown): boolean {
  return failedWith(error, 'ENOENT') || hasCode(error, 'SOURCE_CHANGED');
}
