import type { RootfsConfig } from '../../index.js';
import { asRoot } from '../shell-words.js';
import { formatSize } from '../sizes.js';
import { storeOn } from '../store/find-store.js';
import { type Finding, ok, warn } from './finding.js';

/** Whether the host's disk can fill up beneath a store that holds the clones folder. */
export async function reservedStore({ clonesDir }: RootfsConfig): Promise<Finding[]> {
  const store = await storeOn(clonesDir);
  if (store === undefined) return [];
  const { image, sizeBytes, allocatedBytes } = store;
  const text = `${image}, ${formatSize(sizeBytes)}`;
  if (allocatedBytes >= sizeBytes) return [ok('store', `${text}, all of it reserved on its disk`)];
  const owed = formatSize(sizeBytes - allocatedBytes);
  const fix = asRoot('fallocate', '--length', `${sizeBytes}`, image);
  return [
    warn(
      'store',
      `${text}, ${owed} of it not reserved: if its disk fills up, clones lose what is written`,
      fix,
    ),
  ];
}
