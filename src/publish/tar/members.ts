// Reads the members of a tar: combines each header with what precedes it (long names, pax records) and what follows it
// (sparse maps).

import { isZeroBlock } from '../../image/zero-block.js';
import { Pause } from '../../system/pause.js';
import { type Segment, showPath } from '../tree/file-tree.js';
import { parseHeader, TAR_BLOCK_BYTES, type TarHeader } from './header.js';
import { type PaxRecord, parsePax, parsePaxTime } from './pax.js';
import { PartCount, readOldSparse, readSparseInContents, readSparseInPax, SparseMap } from './sparse-map.js';
import { CREATE_AGAIN, JOIN_VOLUMES, MEND, TarDamaged, WAS_CUT_OFF } from './tar-damaged.js';
import { isLength, type TarBytes, TarInput, WINDOW_BYTES } from './tar-input.js';

export interface TarMember {
  readonly path: Buffer;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
  readonly linkTarget: Buffer;
  readonly major: number;
  readonly minor: number;
  /** The length of the file, and where its bytes are in the tar. */
  readonly sizeBytes: number;
  readonly segments: readonly Segment[];
  /** Includes extended attributes and ACLs. */
  readonly pax: readonly PaxRecord[];
  /** The first of `pax`, which are for all members. The same array until there are others. */
  readonly global: readonly PaxRecord[];
}

const SLASH = 0x2f;

export function isFolder({ type, path }: TarMember): boolean {
  return type === '5' || type === 'D' || (/^[0\0]$/.test(type) && path.at(-1) === SLASH);
}

/** Its path in a message. */
export function shown({ path }: Pick<TarMember, 'path'>): string {
  return showPath(path.toString('latin1')).slice(0, 200);
}

// Limit for a name or the pax records of one file. Maps of sparse files are the longest that mean something.
const META_LIMIT = 16 * 1024 * 1024;
/** Limit for a member's path from the root: deeper than any limit of depth that makes sense. */
const PATH_LIMIT = 1024 * 1024;
/** Limit for the target of a symbolic link: PATH_MAX of Linux, without the NUL. */
const LINK_LIMIT = 4095;

// Programs that write global records write one or two. Each member is looked for in all of them.
const GLOBAL_RECORDS_LIMIT = 100;
const GLOBAL_BYTES_LIMIT = 64 * 1024;

/** chown(2) takes the last of 32 bits as "leave it", and mknod(2) cuts off what is longer. */
const ID_LIMIT = 2 ** 32 - 1;
const MAJOR_LIMIT = 2 ** 12;
const MINOR_LIMIT = 2 ** 20;

const PAUSE_BLOCKS = 4096;

/** Records that are read. A tar may have any number of others, such as comments. */
const READ_RECORD = new RegExp(
  [
    /^(path|linkpath|size|uid|gid|mtime)$/,
    /^GNU\.(sparse\.|volume\.offset$|dumpdir$)|^SUN\.holesdata$/,
    /^SCHILY\.(xattr\.|acl\.|filetype$)|^LIBARCHIVE\.xattr\./,
  ]
    .map(({ source }) => source)
    .join('|'),
);

/** Its first file began in the volume before. `GNU.volume.label` says nothing of the kind. */
const LATER_VOLUME = 'GNU.volume.offset';

/** In pax, a folder's list of an incremental backup. */
const FOLDER_LIST = 'GNU.dumpdir';
/** Of a name in such a list: the file is not in this tar. */
const NOT_IN_TAR = 'N'.charCodeAt(0);

/** The error of a member. */
type Damaged = (what: string, remedy?: string) => TarDamaged;

interface TarWatch {
  /**
   * Called with what is wrong with the end of a tar whose members are whole, and whether it `isCutOff` for certain.
   * What it throws ends the reading.
   */
  readonly onOddEnd?: (why: string, isCutOff: boolean) => void;
  /** Called within long work. */
  readonly checkAborted?: () => void;
}

/**
 * `sizeBytes` is infinite where only the start is there. Throws {@link TarDamaged}, or what `checkAborted` does.
 */
export function readMembers(
  bytes: TarBytes,
  sizeBytes: number,
  watch: TarWatch = {},
): AsyncGenerator<TarMember> {
  return new TarReader(bytes, sizeBytes, watch).members();
}

class TarReader {
  readonly #input: TarInput;
  readonly #onOddEnd: (why: string, isCutOff: boolean) => void;
  readonly #pause: Pause;
  readonly #parts = new PartCount();
  // Records for all following members, and records for the next member only.
  readonly #globalByKey = new Map<string, PaxRecord>();
  #global: readonly PaxRecord[] = [];
  #pax: PaxRecord[] = [];
  /** Pax came before, whether or not with a record that is read. */
  #isPax = false;
  #longPath: Buffer | undefined;
  #longTarget: Buffer | undefined;
  /** Some header is in the form of GNU tar. All programs that write these write the mark of the end as well. */
  #isOfGnu = false;
  /** The last header was of pax or of a long name, for the member behind it. */
  #awaitsMember = false;

  constructor(bytes: TarBytes, size: number, { onOddEnd = () => {}, checkAborted = () => {} }: TarWatch) {
    this.#input = new TarInput(bytes, size);
    this.#onOddEnd = onOddEnd;
    this.#pause = new Pause(checkAborted);
  }

  async *members(): AsyncGenerator<TarMember> {
    for (;;) {
      // Not every program writes the two zero blocks at the end.
      if (this.#input.at === this.#input.size && this.#input.at > 0 && !this.#awaitsMember) {
        const why = this.#isOfGnu ? '' : 'if the program that made it writes one, ';
        this.#onOddEnd(`has no mark of its end: ${why}${WAS_CUT_OFF}`, this.#isOfGnu);
        return;
      }
      const block = await this.#input.take(TAR_BLOCK_BYTES);
      if (isZeroBlock(block)) {
        if (this.#awaitsMember)
          throw new TarDamaged('has a header at its end for a file that is not there: get it again');
        return this.#readEnd();
      }
      const header = parseHeader(block);
      if (header === undefined)
        throw new TarDamaged(`has no header of a tar at byte ${this.#input.at - TAR_BLOCK_BYTES}: ${MEND}`);
      this.#isOfGnu ||= header.isOfGnu;
      const member = await this.#member(header);
      if (member !== undefined) yield member;
    }
  }

  /** After the first block of zeros. What other programs leave out from here on must not be left out in silence. */
  async #readEnd(): Promise<void> {
    if (this.#input.size === Number.POSITIVE_INFINITY) return;
    for (let blocks = 1; this.#input.at + TAR_BLOCK_BYTES <= this.#input.size; blocks++) {
      const at = this.#input.at;
      const block = await this.#input.take(TAR_BLOCK_BYTES);
      if (blocks % PAUSE_BLOCKS === 0) await this.#pause.ifDue();
      if (isZeroBlock(block)) continue;
      if (blocks === 1)
        throw new TarDamaged(
          `has zeros instead of a file header before byte ${at}: it is damaged, so get it again`,
        );
      if (parseHeader(block) !== undefined)
        throw new TarDamaged(
          `has another tar after its end, at byte ${at}: join tars with tar --concatenate, or publish each alone`,
        );
      this.#onOddEnd(`has more behind its end, at byte ${at}, which is left out`, false);
      return;
    }
  }

  /** Undefined if it only describes the next member. */
  async #member(header: TarHeader): Promise<TarMember | undefined> {
    if (!/[gV]/.test(header.type)) this.#awaitsMember = /[LKxX]/.test(header.type);
    switch (header.type) {
      case 'L':
        this.#longPath = withoutNul(await this.#meta(header));
        return undefined;
      case 'K':
        this.#longTarget = withoutNul(await this.#meta(header));
        return undefined;
      case 'x':
      case 'X':
        this.#isPax = true;
        this.#pax = this.#records(await this.#meta(header));
        return undefined;
      case 'g':
        this.#isPax = true;
        this.#addGlobal(this.#records(await this.#meta(header)));
        return undefined;
      // A volume label.
      case 'V':
        await this.#input.skip(header.sizeBytes);
        return undefined;
      // The rest of a file that began in the volume before.
      case 'M':
        throw laterVolume();
      default: {
        const pax = this.#global.length === 0 ? this.#pax : [...this.#global, ...this.#pax];
        const member = await this.#ordinary(header, pax);
        this.#pax = [];
        this.#longPath = undefined;
        this.#longTarget = undefined;
        return member;
      }
    }
  }

  #addGlobal(records: readonly PaxRecord[]): void {
    if (records.length === 0) return;
    for (const record of records) this.#globalByKey.set(record.key, record);
    this.#global = [...this.#globalByKey.values()];
    const bytes = this.#global.reduce((sum, { value }) => sum + value.length, 0);
    if (this.#global.length > GLOBAL_RECORDS_LIMIT || bytes > GLOBAL_BYTES_LIMIT)
      throw new TarDamaged(
        `has more than ${GLOBAL_RECORDS_LIMIT} pax records, or ${GLOBAL_BYTES_LIMIT} bytes, for all of its files`,
      );
  }

  async #ordinary(header: TarHeader, pax: readonly PaxRecord[]): Promise<TarMember> {
    // POSIX: an empty value is as if there were none.
    const last = (key: string) => {
      const value = pax.findLast((record) => record.key === key)?.value;
      return value?.length === 0 ? undefined : value;
    };
    const path = last('GNU.sparse.name') ?? last('path') ?? this.#longPath ?? header.path;
    const damaged = (what: string, remedy = CREATE_AGAIN) =>
      new TarDamaged(`has ${shown({ path })} with ${what}: ${remedy}`);
    const text = (key: string) => last(key)?.toString('latin1');
    const number = (key: string) => {
      const value = text(key);
      if (value !== undefined && !/^-?\d+$/.test(value))
        throw damaged(`the ${key} "${value.slice(0, 100)}", which is not a number`);
      return value === undefined ? undefined : Number(value);
    };
    const stored = number('size') ?? header.sizeBytes;
    if (!isLength(stored)) throw damaged('a size that no file has');
    const { sizeBytes, segments } = await this.#contents(header, stored, pax, number, damaged);
    const time = text('mtime');
    const mtimeNs = time === undefined ? header.mtimeNs : parsePaxTime(time);
    if (mtimeNs === undefined) throw damaged(`the time "${time?.slice(0, 100)}", which is not a number`);
    const linkTarget = last('linkpath') ?? this.#longTarget ?? header.linkTarget;
    if (
      Math.max(path.length, linkTarget.length) > PATH_LIMIT ||
      (header.type === '2' && linkTarget.length > LINK_LIMIT)
    )
      throw damaged('a name or a link of more bytes than Linux allows', 'make it shorter');
    const owner = { uid: number('uid') ?? header.uid, gid: number('gid') ?? header.gid };
    requireNumbers(header, owner, damaged);
    return {
      path,
      type: header.type,
      mode: header.mode,
      ...owner,
      mtimeNs,
      linkTarget,
      major: header.major,
      minor: header.minor,
      sizeBytes,
      segments,
      pax,
      global: this.#global,
    };
  }

  /** Reads past what the tar stores of a member, and tells what it would be as a file. */
  async #contents(
    header: TarHeader,
    stored: number,
    pax: readonly PaxRecord[],
    number: (key: string) => number | undefined,
    damaged: Damaged,
  ): Promise<{ sizeBytes: number; segments: readonly Segment[] }> {
    // Links and devices have no contents, whatever their header says, unless it is a hard link of pax.
    const hasContents =
      HAS_CONTENTS.test(header.type) ||
      (header.type === '1' && stored > 0 && (await this.#isLinkWithContents()));
    if (!hasContents) return { sizeBytes: 0, segments: [] };
    const before = this.#input.at;
    if (header.type === 'D') await this.#readFolderList(stored);
    const map = new SparseMap(this.#parts);
    const take = (length: number) => this.#input.take(length);
    let sizeBytes = number('GNU.sparse.realsize') ?? number('GNU.sparse.size') ?? stored;
    let storedBytes = stored;
    if (header.sparse !== undefined) {
      if (header.isOfStar)
        throw new TarDamaged(
          "has a sparse file in star's own form: make it without -sparse, or with GNU tar",
        );
      // GNU's old map is between header and contents.
      await readOldSparse(map, header.sparse, take);
      sizeBytes = header.sparse.realBytes;
    } else if (number('GNU.sparse.major') === 1) {
      await readSparseInContents(map, stored, take, this.#pause);
      storedBytes -= this.#input.at - before;
    } else if (!(await readSparseInPax(map, pax, this.#pause))) {
      await this.#input.skip(stored);
      if (!isLength(sizeBytes) || stored > sizeBytes) throw damaged('more data than its size');
      return { sizeBytes, segments: stored === 0 ? [] : [{ at: 0, length: stored, from: before }] };
    }
    if (!isLength(sizeBytes)) throw damaged('holes and no size');
    const from = this.#input.at;
    await this.#input.skip(storedBytes);
    return { sizeBytes, segments: await map.segments(from, storedBytes, sizeBytes, this.#pause) };
  }

  /**
   * pax lets a hard link have the contents of its file. Others, such as Go's archive/tar, write the file's size and no
   * contents. Only the next block tells, and GNU tar and Go take any header there for one.
   */
  async #isLinkWithContents(): Promise<boolean> {
    if (!this.#isPax || this.#input.at + TAR_BLOCK_BYTES > this.#input.size) return false;
    const block = await this.#input.take(TAR_BLOCK_BYTES);
    this.#input.at -= TAR_BLOCK_BYTES;
    return !isZeroBlock(block) && parseHeader(block) === undefined;
  }

  /** Comes back to where it began. */
  async #readFolderList(length: number): Promise<void> {
    const before = this.#input.at;
    let isStart = true;
    for (let left = length; left > 0; ) {
      const part = await this.#input.take(Math.min(WINDOW_BYTES, left));
      isStart = requireAllInTar(part, isStart);
      left -= part.length;
      await this.#pause.ifDue();
    }
    this.#input.at = before;
  }

  #records(bytes: Buffer): PaxRecord[] {
    const records = parsePax(bytes, READ_RECORD);
    if (records === undefined)
      throw new TarDamaged(`has a damaged pax header before byte ${this.#input.at}: ${MEND}`);
    for (const { key, value } of records) {
      if (key === LATER_VOLUME) throw laterVolume();
      if (key === FOLDER_LIST) requireAllInTar(value, true);
      if (key === 'SUN.holesdata')
        throw new TarDamaged("has a sparse file in Solaris' own form: make it with GNU tar");
    }
    return records;
  }

  async #meta({ sizeBytes }: TarHeader): Promise<Buffer> {
    if (!(sizeBytes >= 0 && sizeBytes <= META_LIMIT))
      throw new TarDamaged(`has a header of ${sizeBytes} bytes before byte ${this.#input.at}: ${MEND}`);
    const bytes = Buffer.from(await this.#input.take(sizeBytes));
    const rest = sizeBytes % TAR_BLOCK_BYTES;
    if (rest > 0) await this.#input.take(TAR_BLOCK_BYTES - rest);
    return bytes;
  }
}

/** Whether Linux can have such an owner and such a device. */
function requireNumbers(
  { type, mode, major, minor }: TarHeader,
  { uid, gid }: Pick<TarMember, 'uid' | 'gid'>,
  damaged: Damaged,
): void {
  if (Number.isNaN(uid) || Number.isNaN(gid) || Number.isNaN(mode))
    throw damaged('an owner or a mode that is not a number');
  if (!isBelow(ID_LIMIT, uid) || !isBelow(ID_LIMIT, gid))
    throw damaged(
      `the owner ${uid} and the group ${gid}, and Linux has numbers of 32 bits for them`,
      'make the tar with other ones (tar --owner, --group)',
    );
  if (/^[34]$/.test(type) && !(isBelow(MAJOR_LIMIT, major) && isBelow(MINOR_LIMIT, minor)))
    throw damaged(
      `the device numbers ${major} and ${minor}, and Linux has 12 and 20 bits for them`,
      'leave it out',
    );
}

function isBelow(limit: number, value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < limit;
}

/** Regular files, including old dialects, and the folder lists of GNU tar's incremental backups. */
const HAS_CONTENTS = /^[0\0 7SD]$/;

/**
 * Of a folder's list of GNU tar: letters, each with a name and a NUL ("Dumpdir" in its manual). `isStart` of a part of
 * a list that begins with a letter; returns the same of the next part.
 */
function requireAllInTar(list: Buffer, isStart: boolean): boolean {
  let isLetter = isStart;
  for (const byte of list) {
    if (isLetter && byte === NOT_IN_TAR)
      throw new TarDamaged(
        'is an incremental backup, which lacks the files that did not change: restore all of its levels, the oldest ' +
          'first, with tar --extract --listed-incremental=/dev/null, and publish the folder',
      );
    isLetter = byte === 0;
  }
  return isLetter;
}

function laterVolume(): TarDamaged {
  return new TarDamaged(`is one volume of several: ${JOIN_VOLUMES}`);
}

function withoutNul(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}
