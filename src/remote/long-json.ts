// Parses a JSON object whose values are long lists, such as a manifest, without holding the event loop: the items of
// those lists are parsed some at a time. JSON.parse does the rest at once.

import { Pause } from '../system/pause.js';

/** Parsed in a millisecond or so. */
const SLICE_BYTES = 64 * 1024;

const [QUOTE, COMMA, BACKSLASH] = [0x22, 0x2c, 0x5c];
const [LIST, LIST_END, OBJECT, OBJECT_END] = [0x5b, 0x5d, 0x7b, 0x7d];

/** A list in the object: where its items are, and commas between them at which it is cut. */
interface List {
  readonly start: number;
  end: number;
  readonly cuts: number[];
}

/** What JSON.parse gives, or throws, for bytes that begin with `{`. */
export async function parseLongJson(bytes: Buffer): Promise<unknown> {
  if (bytes.length <= SLICE_BYTES) return JSON.parse(bytes.toString('utf8'));
  const pause = new Pause();
  const lists = await listsIn(bytes, pause);
  // Each list has its number in it instead, which finds it again: of two values with one key the last counts.
  let others = '';
  let at = 0;
  for (const [i, { start, end }] of lists.entries()) {
    others += bytes.toString('utf8', at, start) + i;
    at = end;
  }
  const value: object = JSON.parse(others + bytes.toString('utf8', at));
  const items: unknown[][] = [];
  for (const list of lists) items.push(await itemsOf(bytes, list, pause));
  const entries = Object.entries(value);
  return Object.fromEntries(entries.map(([key, held]) => [key, Array.isArray(held) ? items[held[0]] : held]));
}

/** Those that are values of the object itself. */
async function listsIn(bytes: Buffer, pause: Pause): Promise<List[]> {
  const lists: List[] = [];
  let list: List | undefined;
  let depth = 0;
  let isText = false;
  let isEscaped = false;
  const see = (byte: number, at: number) => {
    if (isEscaped) isEscaped = false;
    else if (isText) {
      isText = byte !== QUOTE;
      isEscaped = byte === BACKSLASH;
    } else if (byte === QUOTE) isText = true;
    else if (byte === LIST || byte === OBJECT) {
      if (++depth === 2 && byte === LIST) {
        list = { start: at + 1, end: bytes.length, cuts: [] };
        lists.push(list);
      }
    } else if (byte === LIST_END || byte === OBJECT_END) {
      if (--depth > 1 || list === undefined) return;
      list.end = at;
      list = undefined;
    } else if (byte === COMMA && depth === 2 && list !== undefined) {
      if (at - (list.cuts.at(-1) ?? list.start) >= SLICE_BYTES) list.cuts.push(at);
    }
  };
  await pause.inRanges(0, bytes.length, (first, end) => {
    for (let at = first; at < end; at++) see(bytes[at] as number, at);
  });
  return lists;
}

async function itemsOf(bytes: Buffer, { start, end, cuts }: List, pause: Pause): Promise<unknown[]> {
  const items: unknown[] = [];
  let at = start;
  for (const cut of [...cuts, end]) {
    const slice: unknown[] = JSON.parse(`[${bytes.toString('utf8', at, cut)}]`);
    // Only a list of no items may have none in a slice.
    if (slice.length === 0 && cuts.length > 0) throw new SyntaxError('nothing between two commas');
    for (const item of slice) items.push(item);
    at = cut + 1;
    if (pause.isDue) await pause.take();
  }
  return items;
}
