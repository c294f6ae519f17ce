// Which extended attributes are the tree's own. Others tell of the host that it lies on.
import type { Attribute } from './file-tree.js';

/** What a file system keeps of its own under these names means nothing in another one. */
const OF_THE_HOST = [
  /^btrfs\./,
  /^(trusted|user)\.overlay\./,
  /^(trusted|user)\.glusterfs\./,
  // Labels and measurements of the host's security system. Capabilities of files are not among them.
  /^security\.(?!capability$)/,
  // Access lists of NFS, SMB and others. POSIX ACLs are not among them.
  /^system\.(?!posix_acl_(access|default)$)/,
];

const KEPT = /^(user|trusted|security|system)\./;

const ACL_HEADER_BYTES = 4;
const ACL_ENTRY_BYTES = 8;

/** The attributes that go into the image. */
export function ofTheTree(attributes: readonly Attribute[]): Attribute[] {
  return attributes.filter(
    ({ name, value }) =>
      KEPT.test(name) &&
      !OF_THE_HOST.some((pattern) => pattern.test(name)) &&
      !(name === 'system.posix_acl_access' && isPlainMode(value)),
  );
}

/** An access list of owner, group and others alone is the mode, and file systems drop it. */
function isPlainMode(acl: Buffer): boolean {
  return acl.length <= ACL_HEADER_BYTES + 3 * ACL_ENTRY_BYTES;
}
