// Parses the records of a pax header: `length key=value\n`.

export interface PaxRecord {
  readonly key: string;
  readonly value: Buffer;
}

const SPACE = 0x20;
const EQUALS = 0x3d;
const NEWLINE = 0x0a;

/** Undefined if they are damaged. */
export function parsePax(bytes: Buffer): PaxRecord[] | undefined {
  const records: PaxRecord[] = [];
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    const space = bytes.indexOf(SPACE, at);
    const length = space < 0 ? Number.NaN : Number(bytes.toString('latin1', at, space));
    const end = at + length;
    const equals = bytes.indexOf(EQUALS, space);
    if (!Number.isSafeInteger(length) || end > bytes.length || bytes[end - 1] !== NEWLINE) return undefined;
    if (equals < 0 || equals >= end) return undefined;
    records.push({
      key: bytes.toString('latin1', space + 1, equals),
      value: Buffer.from(bytes.subarray(equals + 1, end - 1)),
    });
    at = end;
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
