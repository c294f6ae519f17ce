// The extended attributes and ACLs of a tar's members, which programs write as pax records in three ways.
import { RootfsError } from '../../system/errors.js';
import type { Pause } from '../../system/pause.js';
import { requireAttributes } from '../ext4/tree-plan.js';
import { ACCESS_ACL, ACL_NAMES, DEFAULT_ACL, ofTheTree } from '../tree/attributes.js';
import { type Attribute, type FileFacts, showPath } from '../tree/file-tree.js';
import { layerMarks, realOwnerElsewhere } from '../tree/layer-marks.js';
import { modeWith, type Names, parseAcl } from './acl.js';
import { ACLS_AGAIN, faultOf, isEmptyAcl, noDefaultAcl } from './attribute-faults.js';
import { isFolder, shown, type TarMember } from './members.js';
import type { PaxRecord } from './pax.js';
import { CREATE_AGAIN } from './tar-damaged.js';

// Shared by all files that have none.
const NO_ATTRIBUTES: readonly Attribute[] = [];

// All that are in words are kept until the end. ext4 holds 500 entries.
const ACL_TEXT_LIMIT = 64 * 1024;
const ACL_TEXT = /^SCHILY\.acl\.(access|default)$/;
/** What setxattr(2) refuses, or would cut off. */
const NO_NAME = /^((user|trusted|security)\.)?$|\0/;
// With or without the padding, as programs differ.
const BASE64 = /^[A-Za-z0-9+/_\s-]*[=\s]*$/;

/** What all members have of a global header. */
interface Shared {
  readonly byName: ReadonlyMap<string, Attribute>;
  readonly attributes: readonly Attribute[];
}

interface Pending {
  readonly node: FileFacts;
  readonly path: string;
  readonly isFolder: boolean;
  readonly acls: readonly PaxRecord[];
}

export class TarAttributes {
  readonly #source: string;
  readonly #pause: Pause;
  readonly #pending: Pending[] = [];
  // Decoded once, not for each of millions of members.
  readonly #shared = new WeakMap<readonly PaxRecord[], Shared>();

  constructor(source: string, pause: Pause) {
    this.#source = source;
    this.#pause = pause;
  }

  /** Those that need no names of users, and the mode: programs differ in whether it has the mask of an ACL. */
  of(member: TarMember, isOfStoredLayer: boolean): Pick<FileFacts, 'attributes' | 'mode'> {
    const { pax, global, mode } = member;
    if (pax.length === 0) return { attributes: NO_ATTRIBUTES, mode };
    const shared = this.#sharedOf(member);
    const own = this.#decode(member, pax.slice(global.length));
    const acls = aclsOf(member);
    const byName = own.size === 0 && acls.length === 0 ? shared.byName : new Map([...shared.byName, ...own]);
    if (byName.size === 0) return { attributes: NO_ATTRIBUTES, mode };
    // Some programs write an ACL in both ways.
    if (byName instanceof Map && acls.length > 0) for (const { key } of acls) byName.delete(nameOfAcl(key));
    for (const attribute of byName.values()) {
      const fault = faultOf(member, attribute);
      if (fault !== undefined) throw this.#refuse(fault);
    }
    const realOwner = realOwnerElsewhere([...byName.values()]);
    if (!isOfStoredLayer && realOwner !== undefined)
      throw this.#refuse(`has ${shown(member)}, which ${realOwner}`);
    const ofTree = byName === shared.byName ? shared.attributes : kept(byName);
    const marks = isOfStoredLayer ? layerMarks([...byName.values()]) : [];
    const attributes = marks.length === 0 ? ofTree : [...ofTree, ...marks];
    // Now, because they are kept in memory until all is planned.
    requireAttributes(this.#source, pathOf(member), attributes);
    const acl = byName.get(ACCESS_ACL)?.value;
    return { attributes, mode: acl === undefined || isEmptyAcl(acl) ? mode : modeWith(acl, mode) };
  }

  addAcls(member: TarMember, node: FileFacts): void {
    const acls = /^[12]$/.test(member.type) ? [] : aclsOf(member);
    if (acls.length > 0) this.#pending.push({ node, path: shown(member), isFolder: isFolder(member), acls });
  }

  get needNames(): boolean {
    return this.#pending.length > 0;
  }

  /** Resolved last, because names in ACLs refer to the tree's own users and groups. */
  async resolveAcls(names: Names): Promise<void> {
    for (const { node, path, isFolder, acls } of this.#pending) {
      await this.#pause.ifDue();
      const added = acls.map(({ key, value }): Attribute => {
        const name = nameOfAcl(key);
        const acl = value.length > ACL_TEXT_LIMIT ? undefined : parseAcl(value.toString('utf8'), names);
        if (acl === undefined) throw this.#refuse(`has a damaged access list at ${path}: ${ACLS_AGAIN}`);
        if (!Buffer.isBuffer(acl))
          throw this.#refuse(
            `has an access list at ${path} for "${acl.unknownName}", whom the tar's own /etc/passwd ` +
              'and /etc/group do not know: make the tar with --numeric-owner, or without --acls',
          );
        if (name === DEFAULT_ACL && !isFolder) throw this.#refuse(noDefaultAcl(path));
        return { name, value: acl };
      });
      const changing = node as { attributes: readonly Attribute[]; mode: number };
      changing.attributes = [...node.attributes, ...ofTheTree(added)];
      const acl = added.find(({ name }) => name === ACCESS_ACL)?.value;
      if (acl !== undefined) changing.mode = modeWith(acl, node.mode);
    }
  }

  #sharedOf(member: TarMember): Shared {
    const known = this.#shared.get(member.global);
    if (known !== undefined) return known;
    const byName = this.#decode(member, member.global);
    const shared = { byName, attributes: kept(byName) };
    this.#shared.set(member.global, shared);
    return shared;
  }

  /** By name. Of several values the last counts, whichever program's way it is written in. */
  #decode(member: TarMember, records: readonly PaxRecord[]): Map<string, Attribute> {
    const byName = new Map<string, Attribute>();
    for (const { key, value } of records) {
      const attribute = attributeOf(key, value);
      if (attribute === undefined) continue;
      if (attribute === 'damaged' || NO_NAME.test(attribute.name))
        throw this.#refuse(
          `has ${shown(member)} with a damaged extended attribute, ${JSON.stringify(key.slice(0, 200))}: ` +
            CREATE_AGAIN,
        );
      byName.set(attribute.name, attribute);
    }
    return byName;
  }

  #refuse(why: string): RootfsError {
    return refused(this.#source, why);
  }
}

/** The error for what is wrong with a tar. */
export function refused(source: string, why: string): RootfsError {
  return new RootfsError('IMAGE_INVALID', `${source} ${why}`, { path: source });
}

function pathOf({ path }: TarMember): string {
  return `/${showPath(path.toString('latin1')).replace(/^[./]+|\/+$/g, '')}`;
}

/** Those in words, the last of each kind. */
function aclsOf({ pax }: TarMember): PaxRecord[] {
  const byKey = new Map<string, PaxRecord>();
  for (const record of pax) if (ACL_TEXT.test(record.key)) byKey.set(record.key, record);
  return [...byKey.values()].filter(({ value }) => value.length > 0);
}

function nameOfAcl(key: string): string {
  return `system.posix_acl_${key.slice('SCHILY.acl.'.length)}`;
}

function kept(byName: ReadonlyMap<string, Attribute>): Attribute[] {
  const present = [...byName.values()].filter(
    ({ name, value }) => !(ACL_NAMES.includes(name) && isEmptyAcl(value)),
  );
  return ofTheTree(present);
}

/** GNU tar writes `=` and `%` in names as `%3D` and `%25`, and no other escape. libarchive's own are those of URLs. */
function attributeOf(key: string, value: Buffer): Attribute | 'damaged' | undefined {
  if (key.startsWith('SCHILY.xattr.')) return { name: unescapeKey(key.slice(13), /%(3D|25)/g), value };
  if (!key.startsWith('LIBARCHIVE.xattr.')) return undefined;
  const name = unescapeKey(key.slice(17), /%([0-9A-Fa-f]{2})/g);
  const text = value.toString('latin1');
  return BASE64.test(text) ? { name, value: Buffer.from(text, 'base64') } : 'damaged';
}

function unescapeKey(key: string, escapes: RegExp): string {
  return key.replace(escapes, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
}
