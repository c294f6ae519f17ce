// A document told to people, fact by fact: what has no table of its own.
import { details } from './output.js';
import { formatSize } from './sizes.js';

export function facts(document: object): string {
  const told: Record<string, string> = {};
  collect(told, '', document);
  return details(told);
}

function collect(told: Record<string, string>, prefix: string, document: object): void {
  for (const [key, value] of Object.entries(document)) {
    if (value === undefined) continue;
    const name = prefix === '' ? words(key) : `${prefix}, ${words(key).toLowerCase()}`;
    if (Array.isArray(value) && value.every((each) => typeof each !== 'object'))
      told[name] = value.join(', ') || 'none';
    else if (typeof value === 'object' && value !== null) collect(told, name, value);
    else told[name] = text(key, value);
  }
}

function text(key: string, value: unknown): string {
  if (typeof value === 'number' && key.endsWith('Bytes')) return formatSize(value);
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return value === null ? 'none' : String(value);
}

/** `exclusiveBytes` → `Exclusive`, `vmId` → `Vm id`: the unit is beside the number already. */
function words(key: string): string {
  const spaced = key
    .replace(/Bytes$/, '')
    .replace(/(?<=[a-z0-9])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
