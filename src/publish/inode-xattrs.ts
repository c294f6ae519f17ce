// Extended attributes within an inode, in one order: mke2fs keeps the one that the tree's filesystem lists them in. Those that an inode has no
// room for have a block of their own, where libext2fs sorts them itself. Layout: the kernel's Documentation/filesystems/ext4/attributes.rst.
const MAGIC = 0xea020000;
const FIXED_PART = 128;
const ENTRY_HEAD = 16;

interface Entry {
  readonly head: Buffer;
  readonly value: Buffer;
}

/** In place. Attributes whose value lies elsewhere are not expected: make-ext4.ts asks for no such feature. */
export function sortInodeXattrs(inode: Buffer): void {
  const header = FIXED_PART + inode.readUInt16LE(0x80);
  if (header + 4 >= inode.length || inode.readUInt32LE(header) !== MAGIC) return;
  // Offsets of values count from the first entry.
  const region = inode.subarray(header + 4);
  const entries = readEntries(region);
  if (entries.length < 2) return;
  entries.sort(
    (a, b) =>
      Buffer.compare(a.head.subarray(1, 2), b.head.subarray(1, 2)) || Buffer.compare(name(a), name(b)),
  );
  region.fill(0);
  let at = 0;
  let end = region.length;
  for (const { head, value } of entries) {
    if (value.length > 0) end -= padded(value.length);
    head.writeUInt16LE(value.length > 0 ? end : 0, 2);
    head.copy(region, at);
    value.copy(region, end);
    at += head.length;
  }
}

function readEntries(region: Buffer): Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; at + 4 <= region.length && region.readUInt32LE(at) !== 0; ) {
    const length = padded(ENTRY_HEAD + region.readUInt8(at));
    const valueAt = region.readUInt16LE(at + 2);
    const valueLength = region.readUInt32LE(at + 8);
    entries.push({
      head: Buffer.from(region.subarray(at, at + length)),
      value: Buffer.from(region.subarray(valueAt, valueAt + valueLength)),
    });
    at += length;
  }
  return entries;
}

function name({ head }: Entry): Buffer {
  return head.subarray(ENTRY_HEAD, ENTRY_HEAD + head.readUInt8(0));
}

function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}
