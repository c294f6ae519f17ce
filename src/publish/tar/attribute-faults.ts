// The attributes that no file of Linux has: setxattr(2) refuses them, and a guest could not read them.
import { ACL_NAMES, DEFAULT_ACL, isOfTheTree } from '../tree/attributes.js';
import type { Attribute } from '../tree/file-tree.js';
import { isBinaryAcl } from './acl.js';
import { isFolder, shown, type TarMember } from './members.js';
import { CREATE_AGAIN, TarDamaged } from './tar-damaged.js';

export const ACLS_AGAIN = `${CREATE_AGAIN} --acls`;
const ACL_HEADER_BYTES = 4;

const IN_LAYERS = 'SCHILY.xattr.';

const LINK = '2';
/** Links, devices and pipes: their permissions are not for what users attach. See xattr(7). */
const HAS_NO_USER_ATTRIBUTES = /^[2346]$/;

const CAPABILITY = 'security.capability';
/** From include/uapi/linux/capability.h. */
const CAPABILITY_BYTES: Readonly<Record<number, number>> = { 33554432: 20, 50331648: 24 };
const EFFECTIVE = 1;

/** What is wrong with it, worded to follow the name of the tar. */
export function faultOf(member: TarMember, { name, value }: Attribute): string | undefined {
  const path = shown(member);
  if (ACL_NAMES.includes(name)) {
    if (isEmptyAcl(value)) return undefined;
    if (!isBinaryAcl(value)) return `has a damaged access list at ${path}: ${ACLS_AGAIN}`;
    if (name === DEFAULT_ACL && !isFolder(member)) return noDefaultAcl(path);
    if (member.type === LINK) return `has an access list at ${path}, which is a symbolic link: ${ACLS_AGAIN}`;
  }
  if (name === CAPABILITY && !isCapability(value))
    return `has ${path} with a damaged ${CAPABILITY}: ${CREATE_AGAIN}`;
  if (name.startsWith('user.') && isOfTheTree(name) && HAS_NO_USER_ATTRIBUTES.test(member.type))
    return `has ${path} with the attribute ${name}, which only files and folders can have: ${CREATE_AGAIN}`;
  return undefined;
}

/** Of a member of a layer. Throws {@link TarDamaged} for what umoci, which knows one way to write them, fails on. */
export function requireSettable(member: TarMember): void {
  if (member.type === '1') return;
  for (const { key, value } of member.pax.slice(member.global.length)) {
    if (!key.startsWith(IN_LAYERS)) continue;
    const fault = faultOf(member, { name: key.slice(IN_LAYERS.length), value });
    if (fault !== undefined) throw new TarDamaged(fault);
  }
}

/** setxattr(2) gives EACCES for it. */
export function noDefaultAcl(path: string): string {
  return `has a default access list at ${path}, which is not a folder: ${ACLS_AGAIN}`;
}

/** setxattr(2) takes one without entries as none. */
export function isEmptyAcl(acl: Buffer): boolean {
  return acl.length === 0 || acl.length === ACL_HEADER_BYTES;
}

function isCapability(value: Buffer): boolean {
  return value.length >= 4 && CAPABILITY_BYTES[(value.readUInt32LE(0) & ~EFFECTIVE) >>> 0] === value.length;
}
