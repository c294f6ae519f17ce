// What the checks ask about a shared object: 64-bit little-endian ELF, as in <elf.h>.

const SECTION = { symtab: 2, dynsym: 11 };
const SEGMENT = { load: 1, dynamic: 2, gnuStack: 0x6474e551, gnuRelro: 0x6474e552 };
const FLAG = { execute: 1, write: 2 };
const TAG = {
  needed: 1,
  rpath: 15,
  textrel: 22,
  bindNow: 24,
  runpath: 29,
  flags: 30,
  flags1: 0x6ffffffb,
  verneed: 0x6ffffffe,
};
const DF_TEXTREL = 4;
const DF_BIND_NOW = 8;
const DF_1_NOW = 1;
const MACHINES = { 62: 'x64', 183: 'arm64' };

/** @param {Buffer} bytes */
export function readElf(bytes) {
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) {
    throw new Error('not a 64-bit little-endian ELF file');
  }
  const segments = readSegments(bytes);
  const sections = readSections(bytes);
  const dynamic = readDynamic(bytes, segments);
  const symbols = readDynamicSymbols(bytes, sections);
  const values = (tag) => dynamic.filter((entry) => entry.tag === tag).map((entry) => entry.value);
  const has = (tag) => values(tag).length > 0;
  const flags = values(TAG.flags)[0] ?? 0;
  const machine = bytes.readUInt16LE(18);
  const relro = segments.find(({ type }) => type === SEGMENT.gnuRelro);
  const stack = segments.find(({ type }) => type === SEGMENT.gnuStack);
  return {
    machine: MACHINES[machine] ?? `machine ${machine}`,
    /** Libraries that the loader has to find. */
    neededCount: values(TAG.needed).length,
    hasSearchPath: has(TAG.rpath) || has(TAG.runpath),
    hasVersionedSymbols: has(TAG.verneed),
    hasTextRelocations: has(TAG.textrel) || (flags & DF_TEXTREL) !== 0,
    bindsNow:
      has(TAG.bindNow) || (flags & DF_BIND_NOW) !== 0 || ((values(TAG.flags1)[0] ?? 0) & DF_1_NOW) !== 0,
    hasRelro: relro !== undefined,
    /** The address where what is read-only after relocation ends. */
    relroEnd: relro === undefined ? 0 : relro.address + relro.memoryBytes,
    /** Of the pages that the file is laid out for. */
    pageBytes: Math.min(
      ...segments.filter(({ type }) => type === SEGMENT.load).map(({ alignment }) => alignment),
    ),
    // Without the header the loader gives an executable one.
    hasExecutableStack: stack === undefined || (stack.flags & FLAG.execute) !== 0,
    hasWritableCode: segments.some(
      ({ type, flags }) =>
        type === SEGMENT.load && (flags & FLAG.write) !== 0 && (flags & FLAG.execute) !== 0,
    ),
    fileBytes: bytes.length,
    isStripped: !sections.some(({ type, name }) => type === SECTION.symtab || name.startsWith('.debug')),
    undefinedSymbols: symbols.filter(({ defined }) => !defined).map(({ name }) => name),
    exportedSymbols: symbols.filter(({ defined }) => defined).map(({ name }) => name),
  };
}

function readSegments(bytes) {
  return table(bytes, { start: 0x20, size: 0x36, count: 0x38 }, (at) => ({
    type: bytes.readUInt32LE(at),
    flags: bytes.readUInt32LE(at + 4),
    offset: number(bytes, at + 8),
    address: number(bytes, at + 16),
    size: number(bytes, at + 32),
    memoryBytes: number(bytes, at + 40),
    alignment: number(bytes, at + 48),
  }));
}

function readSections(bytes) {
  const sections = table(bytes, { start: 0x28, size: 0x3a, count: 0x3c }, (at) => ({
    nameOffset: bytes.readUInt32LE(at),
    type: bytes.readUInt32LE(at + 4),
    offset: number(bytes, at + 24),
    size: number(bytes, at + 32),
    link: bytes.readUInt32LE(at + 40),
    entrySize: number(bytes, at + 56),
  }));
  const names = sections[bytes.readUInt16LE(0x3e)];
  return sections.map((section) => ({ ...section, name: string(bytes, names.offset + section.nameOffset) }));
}

function readDynamic(bytes, segments) {
  const segment = segments.find(({ type }) => type === SEGMENT.dynamic);
  const entries = [];
  for (let at = segment?.offset ?? 0; at < (segment?.offset ?? 0) + (segment?.size ?? 0); at += 16) {
    entries.push({ tag: number(bytes, at), value: number(bytes, at + 8) });
  }
  return entries;
}

function readDynamicSymbols(bytes, sections) {
  const section = sections.find(({ type }) => type === SECTION.dynsym);
  if (section === undefined) return [];
  const strings = sections[section.link];
  const symbols = [];
  for (let at = section.offset; at < section.offset + section.size; at += section.entrySize) {
    const name = string(bytes, strings.offset + bytes.readUInt32LE(at));
    if (name !== '') symbols.push({ name, defined: bytes.readUInt16LE(at + 6) !== 0 });
  }
  return symbols;
}

function table(bytes, header, read) {
  const start = number(bytes, header.start);
  const size = bytes.readUInt16LE(header.size);
  return Array.from({ length: bytes.readUInt16LE(header.count) }, (_, index) => read(start + index * size));
}

function number(bytes, at) {
  return Number(bytes.readBigUInt64LE(at));
}

function string(bytes, at) {
  return bytes.toString('latin1', at, bytes.indexOf(0, at));
}
