// Publishes a VM's disk as a stack.
import { native, type OpenedSource } from '../addon/native.js';
import type { ImageConfig } from '../catalog/image-config.js';
import type { Templates } from '../catalog/templates.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { type SlotImageRequest, withSlotImage } from '../slot/slot-image.js';
import type { VmId } from '../slot/vm-id.js';
import { hasCode } from '../system/errors.js';
import { type PublishPrograms, type PublishRequest, publishStack } from './publish.js';
import type { PublishedStack } from './publish-options.js';
import { isPrivate } from './template-mode.js';

export interface CommitRequest extends Pick<PublishRequest, 'name' | 'templatePath' | 'options'> {
  readonly vm: VmId;
  readonly slots: ManagedFolder;
  readonly slotImage: SlotImageRequest;
  /** How to start the image that the slot was cloned from. */
  readonly imageConfig: (sha256: string, stack: string | undefined) => Promise<ImageConfig | undefined>;
}

export async function commitSlot(
  catalog: ManagedFolder,
  templates: Templates,
  programs: PublishPrograms,
  { vm, slots, slotImage, imageConfig, ...stack }: CommitRequest,
): Promise<PublishedStack> {
  return withSlotImage(slots, vm, slotImage, async (image) => {
    try {
      return await publishStack(catalog, templates, programs, {
        ...stack,
        source: image.path,
        opened: image,
        config: await imageConfig(image.sourceSha256, image.state.stack || undefined),
        // A disk that only its VM may read becomes no template that everybody may read.
        isPrivate: isPrivate(image.state.image?.mode ?? 0),
      });
    } catch (error) {
      // A release changes the image's ctime as a write does.
      if (hasCode(error, 'SOURCE_CHANGED') && (await hasLostLink(image))) return undefined;
      throw error;
    }
  });
}

async function hasLostLink({ source, info }: OpenedSource): Promise<boolean> {
  const now = await native().checkSource(source);
  return now.info.identity.links < info.identity.links;
}
