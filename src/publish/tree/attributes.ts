// Decides which extended attributes belong to the tree. The others describe the host.
import type { Attribute } from './file-tree.js';

/** Internal names of one filesystem, which mean nothing on another. */
const OF_THE_HOST = [
  /^btrfs\./,
  /^(trusted|user)\.overlay\./,
  /^user\.((containers|fuseoverlayfs)\.|rootlesscontainers$)/,
  // The access lists of XFS, with the same users as POSIX's.
  /^trusted\.SGI_/,
  // Bricks of GlusterFS, and what Lustre keeps of its stripes.
  /^(trusted|user)\.glusterfs\./,
  /^trusted\.(gfid$|gfid2path|pgfid\.|afr\.|ec\.|bit-rot\.)/,
  /^trusted\.(lov|lma|link|som|hsm)$/,
  /^(trusted\.)?lustre\./,
  // Labels and measurements of the host's security system. File capabilities are kept.
  /^security\.(?!capability$)/,
  // ACLs of NFS, SMB and others. POSIX ACLs are kept.
  /^system\.(?!posix_acl_(access|default)$)/,
];

const KEPT = /^(user|trusted|security|system)\./;

export const ACCESS_ACL = 'system.posix_acl_access';
export const DEFAULT_ACL = 'system.posix_acl_default';
export const ACL_NAMES = [ACCESS_ACL, DEFAULT_ACL];
const ACL_HEADER_BYTES = 4;
const ACL_ENTRY_BYTES = 8;

/** The attributes that go into the image. */
export function ofTheTree(attributes: readonly Attribute[]): Attribute[] {
  return attributes.filter(
    ({ name, value }) => isOfTheTree(name) && !(name === ACCESS_ACL && isPlainMode(value)),
  );
}

export function isOfTheTree(name: string): boolean {
  return KEPT.test(name) && !OF_THE_HOST.some((pattern) => pattern.test(name));
}

/** An ACL with only owner, group and others is the same as the mode, and filesystems drop it. */
function isPlainMode(acl: Buffer): boolean {
  return acl.length <= ACL_HEADER_BYTES + 3 * ACL_ENTRY_BYTES;
}
