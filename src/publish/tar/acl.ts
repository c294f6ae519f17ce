// Converts a POSIX ACL from the text that star and GNU tar write to the kernel's binary form.

/** From the kernel's include/uapi/linux/posix_acl.h, in the order the kernel requires. */
const TAGS = { owner: 0x01, user: 0x02, owningGroup: 0x04, group: 0x08, mask: 0x10, other: 0x20 } as const;
const VERSION = 2;
const NO_ID = 0xffff_ffff;

interface Entry {
  readonly tag: number;
  readonly permissions: number;
  readonly id: number;
}

/** User and group ids by name. */
export interface Names {
  readonly users: ReadonlyMap<string, number>;
  readonly groups: ReadonlyMap<string, number>;
}

/** Undefined if it is not an ACL that Linux takes. Returns a text if it contains an unknown name. */
export function parseAcl(text: string, names: Names): Buffer | { readonly unknownName: string } | undefined {
  const entries: Entry[] = [];
  for (const part of text.split(/[,\n]/).map((line) => line.replace(/#.*/, '').trim())) {
    if (part === '') continue;
    // star adds the numeric user or group id as a fourth field.
    const [kind = '', name = '', permissions, number] = part.split(':');
    if (permissions === undefined || !/^[r-][w-][xX-]$/.test(permissions)) return undefined;
    const tag = tagOf(kind, name);
    if (tag === undefined) return undefined;
    const id = idOf(tag, name, number, names);
    if (id === undefined) return { unknownName: name };
    if (tag === TAGS.user || tag === TAGS.group ? id >= NO_ID : name !== '') return undefined;
    entries.push({ tag, permissions: bits(permissions), id });
  }
  if (!isComplete(entries)) return undefined;
  entries.sort((a, b) => a.tag - b.tag || a.id - b.id);
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(VERSION, 0);
  for (const [i, { tag, permissions, id }] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * i);
    bytes.writeUInt16LE(permissions, 6 + 8 * i);
    bytes.writeUInt32LE(id, 8 + 8 * i);
  }
  return bytes;
}

/** Whether these bytes are an ACL in the kernel's form, as `setxattr` takes it. */
export function isBinaryAcl(bytes: Buffer): boolean {
  if (bytes.length < 4 || bytes.length % 8 !== 4 || bytes.readUInt32LE(0) !== VERSION) return false;
  const entries: Entry[] = [];
  for (let at = 4; at < bytes.length; at += 8)
    entries.push({
      tag: bytes.readUInt16LE(at),
      permissions: bytes.readUInt16LE(at + 2),
      id: bytes.readUInt32LE(at + 4),
    });
  const known: readonly number[] = Object.values(TAGS);
  return (
    entries.every(
      ({ tag, permissions, id }, i) =>
        known.includes(tag) &&
        permissions <= 7 &&
        tag >= (entries[i - 1]?.tag ?? 0) &&
        !((tag === TAGS.user || tag === TAGS.group) && id === NO_ID),
    ) && isComplete(entries)
  );
}

/** The mode of a file with this access list, as setxattr makes it: its group's bits are those of the mask. */
export function modeWith(acl: Buffer, mode: number): number {
  const permissionsOf = new Map<number, number>();
  for (let at = 4; at < acl.length; at += 8)
    permissionsOf.set(acl.readUInt16LE(at), acl.readUInt16LE(at + 2));
  const bits = (tag: number) => permissionsOf.get(tag) ?? 0;
  const group = permissionsOf.has(TAGS.mask) ? bits(TAGS.mask) : bits(TAGS.owningGroup);
  return (mode & 0o7000) | (bits(TAGS.owner) << 6) | (group << 3) | bits(TAGS.other);
}

/** As the kernel's posix_acl_valid has it. A guest gets EIO for a file with any other list. */
function isComplete(entries: readonly Entry[]): boolean {
  const count = (...tags: number[]) => entries.filter(({ tag }) => tags.includes(tag)).length;
  const masks = count(TAGS.mask);
  return (
    [TAGS.owner, TAGS.owningGroup, TAGS.other].every((tag) => count(tag) === 1) &&
    (masks === 1 || (masks === 0 && count(TAGS.user, TAGS.group) === 0))
  );
}

function tagOf(kind: string, name: string): number | undefined {
  switch (kind) {
    case 'user':
    case 'u':
      return name === '' ? TAGS.owner : TAGS.user;
    case 'group':
    case 'g':
      return name === '' ? TAGS.owningGroup : TAGS.group;
    case 'mask':
    case 'm':
      return TAGS.mask;
    case 'other':
    case 'o':
      return TAGS.other;
    default:
      return undefined;
  }
}

function idOf(tag: number, name: string, number: string | undefined, names: Names): number | undefined {
  if (tag !== TAGS.user && tag !== TAGS.group) return NO_ID;
  for (const text of [number, name]) if (text !== undefined && /^\d+$/.test(text)) return Number(text);
  return (tag === TAGS.user ? names.users : names.groups).get(name);
}

function bits(permissions: string): number {
  return [4, 2, 1].reduce((sum, bit, i) => sum + (permissions[i] === '-' ? 0 : bit), 0);
}
