// Reads lists of VM ids. What a person sees on a line counts. A line that could mean another VM is refused.
import { RootfsError } from '../index.js';
import { Pause } from '../system/pause.js';
import { nameOfInput, readText } from './text-input.js';

/** An id of a list, and where it stands, for messages. */
export interface ListedId {
  readonly id: string;
  readonly where: string;
  /** It is the last line of a file, without a line end: its rest may be missing. */
  readonly hasNoEnd?: boolean;
}

// Everything that editors show as a line break.
const LINE_END = /\r\n|[\n\v\f\r\u0085\u2028\u2029]/g;

// What an id does not go on with: "vm-1", vm-1 # comment, microvm@vm-1.service and /srv/vm-1/disk hold the id vm-1, and
// vm-10 and web-vm-1 do not.
const BESIDE_IDS = /[^\p{L}\p{N}\p{M}_-]/u;

// In folded text: tables cut long ids short ("vm…"), and word processors wrap them at a hyphen.
const CUT_SHORT = /(?<![\p{L}\p{N}\p{M}-])[\p{L}\p{N}\p{M}-]*[\p{L}\p{N}\p{M}](?:-+$|(?=-*\.\.))/gu;

// No id is as long, and a list may be one line.
const WORDS_LIMIT = 4096;

// In folded text: what stands for several ids in shells, regular expressions, SQL, templates and lists of numbers.
// `["vm-1"]` and `{uuid}` are none of these.
const WILDCARD = new RegExp(
  [
    /[*?%]/u,
    /\.(?=[*+?])|\\[dsw]/u,
    /\[[^\]"'\s]+\]/u,
    /\{[^{}"']*(?:,|\.\.)[^{}"']*\}/u,
    /\([^()]*\|[^()]*\)/u,
    /\$\{?\w+\}?|\{\{[^{}]*\}\}/u,
    /[\p{L}\p{N}]+\.\.[\p{L}\p{N}]+|\d+(?:,|\s+to\s+)\d+/u,
  ]
    .map(({ source }) => `(?:${source})[*+?]*`)
    .join('|'),
  'u',
);

// As other programs take them.
const ALL_OR_NONE = /^(?:all|any|every|everything|none)(?:-vms?)?$/;

const DASH = /[\p{Pd}\u2212_]/gu;

/** The ids of a file, one a line, without empty lines and the space around each. `-` is standard input. */
export async function readIdList(path: string, signal?: AbortSignal): Promise<ListedId[]> {
  const name = nameOfInput(path);
  const found: ListedId[] = [];
  const pause = new Pause();
  let number = 0;
  for (const { line, hasNoEnd } of linesOf(await readText(path, signal))) {
    if (pause.isDue) await pause.take();
    number++;
    const id = visible(line);
    if (id !== '') found.push(requireNoControls({ id, where: `line ${number} of ${name}`, hasNoEnd }));
  }
  return found;
}

function* linesOf(text: string): Generator<{ line: string; hasNoEnd: boolean }> {
  let start = 0;
  for (const { index, 0: end } of text.matchAll(LINE_END)) {
    yield { line: text.slice(start, index), hasNoEnd: false };
    start = index + end.length;
  }
  yield { line: text.slice(start), hasNoEnd: true };
}

/**
 * The raw ids among `existing` that the list names. A listed id names a VM that looks the same: the forms of Unicode
 * and characters that nobody sees do not count. Rejects with `INVALID_ARGUMENT` for a listed id that names no VM but
 * contains the name of one that is not on the list, differs from it only in case, punctuation or escapes, was cut
 * short, or is a pattern that means it as well: `"vm-1",`, `VM-1`, `vm-1 # the first`, `vm-1.service`, `vm\x2d1`,
 * `vm–1`, `vm…`, a UUID without hyphens, `vm-*`, `all`. So is a last line without a line end that the name of such
 * a VM begins with.
 */
export async function namedIn(
  list: readonly ListedId[],
  existing: ReadonlySet<string> | readonly string[],
): Promise<Set<string>> {
  const pause = new Pause();
  const byLooks = new Map<string, string[]>();
  for (const rawId of existing) {
    if (pause.isDue) await pause.take();
    const looks = visible(rawId);
    const alike = byLooks.get(looks);
    if (alike === undefined) byLooks.set(looks, [rawId]);
    else alike.push(rawId);
  }
  const named = new Set<string>();
  const unmatched: ListedId[] = [];
  for (const listed of list) {
    if (pause.isDue) await pause.take();
    const found = byLooks.get(visible(listed.id));
    if (found === undefined) unmatched.push(listed);
    else for (const rawId of found) named.add(rawId);
  }
  const meant = new Map<string, string>();
  let longest = 0;
  for (const rawId of unmatched.length === 0 ? [] : existing) {
    if (pause.isDue) await pause.take();
    if (named.has(rawId)) continue;
    const text = folded(rawId);
    for (const spelling of [text, words(text), digits(text)]) if (spelling !== '') meant.set(spelling, rawId);
    longest = Math.max(longest, text.length);
  }
  for (const { id, where, hasNoEnd } of unmatched) {
    for (const spelling of new Set([id, unquoted(id)])) {
      const text = folded(spelling);
      const within =
        (text.length > WORDS_LIMIT ? undefined : (meant.get(words(text)) ?? meant.get(digits(text)))) ??
        (await idWithin(text, meant, longest, pause)) ??
        (await idBegunIn(text, meant, pause));
      const rawId = within ?? (await idOfPattern(text, meant, pause));
      if (rawId === undefined) continue;
      const shown = JSON.stringify(rawId);
      const why =
        within === undefined
          ? `Patterns and words such as "all" are not understood, and it may mean ${shown}.`
          : `No VM has that id; did you mean ${shown}?`;
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `${where} is ${JSON.stringify(id)}. ${why} Write one id per line, and nothing else`,
      );
    }
    const rawId = hasNoEnd ? await idFrom(folded(id), meant, pause) : undefined;
    if (rawId !== undefined)
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `${where} is ${JSON.stringify(id)}, without a line end: the list may be cut off there, and may mean ` +
          `${JSON.stringify(rawId)}. Write the list again; if it is whole, end its last line`,
      );
  }
  return named;
}

/** The VM whose id, of `longest` letters at most, stands within the text. An id may itself hold a slash or a dot. */
async function idWithin(
  text: string,
  meant: ReadonlyMap<string, string>,
  longest: number,
  pause: Pause,
): Promise<string | undefined> {
  const places = [0];
  const add = (place: number) => {
    if (places.at(-1) !== place) places.push(place);
  };
  for (let i = 0; i < text.length; i++) {
    if (pause.isDue) await pause.take();
    if (!BESIDE_IDS.test(text[i] as string)) continue;
    add(i);
    add(i + 1);
  }
  add(text.length);
  for (const [i, start] of places.entries()) {
    if (pause.isDue) await pause.take();
    for (let k = i + 1; k < places.length && (places[k] as number) - start <= longest; k++) {
      const found = meant.get(text.slice(start, places[k]));
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

/** The VM whose id begins as one that the text shows a part of: the rest is left out, or on the next line. */
async function idBegunIn(
  text: string,
  meant: ReadonlyMap<string, string>,
  pause: Pause,
): Promise<string | undefined> {
  for (const [begun] of text.matchAll(CUT_SHORT)) {
    const found = await idFrom(begun, meant, pause);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The VM whose id begins with the text. */
async function idFrom(
  text: string,
  meant: ReadonlyMap<string, string>,
  pause: Pause,
): Promise<string | undefined> {
  for (const [spelling, rawId] of meant) {
    if (pause.isDue) await pause.take();
    if (spelling.startsWith(text)) return rawId;
  }
  return undefined;
}

/** The VM that the text, or a word of it, means as other programs read patterns. */
async function idOfPattern(
  text: string,
  meant: ReadonlyMap<string, string>,
  pause: Pause,
): Promise<string | undefined> {
  if (text.length > WORDS_LIMIT) return undefined;
  if (ALL_OR_NONE.test(words(text))) return meant.values().next().value;
  for (const word of new Set([text, ...text.split(/[\s"'`;]+/)])) {
    const literals = literalsOf(word);
    // In a list of a person, `*` and `[x]` begin a line.
    const saysNothing = word !== text && literals.every((literal) => words(literal) === '');
    if (literals.length === 1 || saysNothing) continue;
    for (const [spelling, rawId] of meant) {
      if (pause.isDue) await pause.take();
      if (matches(spelling, literals)) return rawId;
    }
  }
  return undefined;
}

/** What stands before, between and behind the wildcards of a pattern. */
function literalsOf(pattern: string): string[] {
  // A regular expression that has no end.
  const open = pattern.startsWith('^') ? `${pattern.slice(1).replace(/\$$/, '')}*` : pattern;
  return open.replace(/,$/, '').split(WILDCARD);
}

/** Whether the literals stand in the text in this order, the first at its start and the last at its end. */
function matches(text: string, literals: readonly string[]): boolean {
  const [first = '', ...others] = literals;
  const last = others.pop() ?? '';
  if (!text.startsWith(first)) return false;
  let at = first.length;
  for (const literal of others) {
    const found = text.indexOf(literal, at);
    if (found < 0) return false;
    at = found + literal.length;
  }
  return text.length - at >= last.length && text.endsWith(last);
}

/** What people take for the same, without looking closely, and how other programs write it. */
function folded(text: string): string {
  return visible(decoded(text)).normalize('NFKC').toLowerCase().replace(DASH, '-');
}

/** Without what people and programs write in place of other punctuation: systemd has `-` for `/`. */
function words(text: string): string {
  return text.replace(/[^\p{L}\p{N}\p{M}]+/gu, '-').replace(/^-|-$/g, '');
}

/** A UUID or a MAC address, which some programs write without punctuation. Empty for other texts. */
function digits(text: string): string {
  const [found = ''] = /^[\da-f]{12,}$/.exec(text.replace(/[^\p{L}\p{N}\p{M}]+/gu, '')) ?? [];
  return found;
}

/** Whether it shows nothing: it comes from an unset variable rather than from a VM. */
export function isBlank(id: string): boolean {
  return visible(id) === '';
}

/** A text as people see it: one Unicode form, no invisible characters, no space around it. */
function visible(text: string): string {
  return text
    .normalize('NFC')
    .replace(/[\p{Cf}\p{Default_Ignorable_Code_Point}]/gu, '')
    .trim();
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  apos: "'",
  gt: '>',
  hyphen: '-',
  lt: '<',
  minus: '-',
  nbsp: ' ',
  ndash: '-',
  quot: '"',
  shy: '',
  sol: '/',
};

/**
 * Without the escapes of systemd, URLs, JSON, HTML and `ls -b`: `\x2d`, `%2D`, `\u002d`, `&#45;`, `&hyphen;` and `\055`
 * are a hyphen.
 */
function decoded(text: string): string {
  const character = (hex: string | undefined, decimal?: string) =>
    String.fromCharCode(hex === undefined ? Number(decimal) : Number.parseInt(hex, 16));
  return text
    .replace(/((\\x|%)[\da-f]{2})+/gi, (escapes) => textOf(escapes.split(/\\x|%/i), 16))
    .replace(/(\\[0-3][0-7]{2})+/g, (escapes) => textOf(escapes.split('\\'), 8))
    .replace(/\\u([\da-f]{4})/gi, (_, hex) => character(hex))
    .replace(/&#(?:x([\da-f]+)|(\d+));/gi, (_, hex, decimal) => character(hex, decimal))
    .replace(/&([a-z]+);/g, (entity, name) => ENTITIES[name] ?? entity);
}

/** Without the escapes of quoted-printable: `=2D` is a hyphen. `id=2d-1` may mean both. */
function unquoted(text: string): string {
  return text.replace(/(=[\dA-F]{2})+/g, (escapes) => textOf(escapes.split('='), 16));
}

/** The text of bytes, of which the first string stands for none. */
function textOf([, ...bytes]: readonly string[], base: number): string {
  return Buffer.from(bytes.map((byte) => Number.parseInt(byte, base))).toString();
}

function requireNoControls(listed: ListedId): ListedId {
  if (!/[^\P{Cc}\t]/u.test(listed.id)) return listed;
  throw new RootfsError(
    'INVALID_ARGUMENT',
    `${listed.where} holds a control character: ${JSON.stringify(listed.id)}. Write one id a line`,
  );
}
