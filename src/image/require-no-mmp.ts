// Refuses multiple mount protection. Not in grow.ts, whose types are public.
import { RootfsError } from '../system/errors.js';
import type { Ext4Superblock } from './ext4.js';

/**
 * With mmp, `e2fsck -p` and `resize2fs` sleep twice the interval in the image, up to a day (ext2fs_mmp_start() in
 * e2fsprogs). It would hold up other images too, for a disk that only one VM has.
 */
export function requireNoMmp({ hasMmp }: Ext4Superblock, name: string): void {
  if (!hasMmp) return;
  throw new RootfsError(
    'IMAGE_INVALID',
    `the filesystem in ${name} has the feature mmp, for disks that several hosts can mount: it makes each check and ` +
      'growth wait. Remove it with tune2fs -f -O ^mmp from the disk of a stopped VM, or from a copy of the image, ' +
      'and publish the copy',
    { path: name },
  );
}
