// Parses the records of a pax header: `length key=value\n`.

export interface PaxRecord {
  readonly key: string;
  readonly value: Buffer;
}

const ZERO = 0x30;
const NINE = 0x39;
const SPACE = 0x20;
const EQUALS = 0x3d;
const NEWLINE = 0x0a;

// Two for each part of a sparse file of the oldest kind. A file has fewer than ten thousand attributes: Linux allows 64
// KiB of names.
const RECORDS_LIMIT = 2_000_000;
const ATTRIBUTES_LIMIT = 10_000;

/** Length of the shortest key that is wanted: `uid` and `gid` have three letters. */
const SHORTEST_KEY = 3;

/** Those with a key that is `wanted`. Undefined if they are damaged, or more than any file has. */
export function parsePax(bytes: Buffer, wanted: RegExp): PaxRecord[] | undefined {
  const records: PaxRecord[] = [];
  let others = 0;
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    // Byte by byte: there can be millions of them, and each call to a method of a buffer costs more than a record.
    let space = at;
    let length = 0;
    for (let byte = bytes[at]; byte !== undefined && byte >= ZERO && byte <= NINE; byte = bytes[++space])
      length = length * 10 + (byte - ZERO);
    const end = at + length;
    if (bytes[space] !== SPACE || end > bytes.length || bytes[end - 1] !== NEWLINE) return undefined;
    let equals = space;
    while (equals < end && bytes[equals] !== EQUALS) equals++;
    if (equals >= end) return undefined;
    at = end;
    if (equals - space - 1 < SHORTEST_KEY) continue;
    const key = bytes.toString('latin1', space + 1, equals);
    if (!wanted.test(key)) continue;
    if (!key.startsWith('GNU.sparse.')) others++;
    if (records.length === RECORDS_LIMIT || others > ATTRIBUTES_LIMIT) return undefined;
    records.push({ key, value: Buffer.from(bytes.subarray(equals + 1, end - 1)) });
  }
  return records;
}

/** Parses decimal seconds with a fraction. Undefined if it is not a number. */
export function parsePaxTime(text: string): bigint | undefined {
  const [, sign, seconds, fraction] = /^(-?)(\d+)(?:\.(\d*))?$/.exec(text) ?? [];
  if (seconds === undefined) return undefined;
  const ns = BigInt(seconds) * 1_000_000_000n + BigInt((fraction ?? '').slice(0, 9).padEnd(9, '0'));
  return sign === '-' ? -ns : ns;
}
