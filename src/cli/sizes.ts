// Parses sizes as GNU programs do: 8G and 8GiB are 8 * 1024^3 bytes, 8GB is 8 * 1000^3.
import { InvalidArgumentError } from 'commander';

const POWERS = ['', 'K', 'M', 'G', 'T', 'P'];

/** For an argument of a command: refused words are a usage error. */
export function parseSize(text: string): number {
  const match = /^(\d+)(?:\.(\d+))?\s*(?:([KMGTP])(iB|B)?|B)?$/i.exec(text.trim());
  if (match === null)
    throw new InvalidArgumentError('A size is a number of bytes, or a number with a unit: 4096, 8G, 512MiB.');
  const [, whole = '', fraction = '', unit = '', suffix = ''] = match;
  const base = suffix.toUpperCase() === 'B' ? 1000 : 1024;
  // Exactly: in floating point 1.001 * 1000 is not a whole number.
  const parts = BigInt(whole + fraction) * BigInt(base) ** BigInt(POWERS.indexOf(unit.toUpperCase()));
  const perByte = 10n ** BigInt(fraction.length);
  if (parts % perByte !== 0n || parts / perByte > Number.MAX_SAFE_INTEGER)
    throw new InvalidArgumentError('That is not a whole number of bytes below 2^53.');
  return Number(parts / perByte);
}

/** `8 GiB`, `7.5 GiB`, `4 KiB`, `12 B`: for people; JSON has bytes. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let power = 0;
  while (value >= 1024 && power < POWERS.length - 1) {
    value /= 1024;
    power++;
  }
  const unit = power === 0 ? 'B' : `${POWERS[power]}iB`;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${unit}`;
}
