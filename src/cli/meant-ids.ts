// Finds the VM that a line may mean although it is not the VM's id: the id is part of the line, was cut short, or is
// one of those that a pattern means.
import type { Pause } from '../system/pause.js';
import { digits, folded, words } from './id-spellings.js';

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

/** The ids that lines may mean, by their spellings. */
export class MeantIds {
  readonly #bySpelling = new Map<string, string>();
  readonly #pause: Pause;
  #longest = 0;

  constructor(pause: Pause) {
    this.#pause = pause;
  }

  add(rawId: string): void {
    const text = folded(rawId);
    for (const spelling of [text, words(text), digits(text)])
      if (spelling !== '') this.#bySpelling.set(spelling, rawId);
    this.#longest = Math.max(this.#longest, text.length);
  }

  /** The VM whose id, or the start of it, the folded text shows. */
  async shownIn(text: string): Promise<string | undefined> {
    return this.#spelled(text) ?? (await this.#within(text)) ?? (await this.#begunIn(text));
  }

  /** The VM whose id begins with the text. */
  async beginningWith(text: string): Promise<string | undefined> {
    for (const [spelling, rawId] of this.#bySpelling) {
      if (this.#pause.isDue) await this.#pause.take();
      if (spelling.startsWith(text)) return rawId;
    }
    return undefined;
  }

  /** The VM that the text, or a word of it, means as other programs read patterns. */
  async ofPattern(text: string): Promise<string | undefined> {
    if (text.length > WORDS_LIMIT) return undefined;
    if (ALL_OR_NONE.test(words(text))) return this.#bySpelling.values().next().value;
    for (const word of new Set([text, ...text.split(/[\s"'`;]+/)])) {
      const literals = literalsOf(word);
      // In a list of a person, `*` and `[x]` begin a line.
      const saysNothing = word !== text && literals.every((literal) => words(literal) === '');
      if (literals.length === 1 || saysNothing) continue;
      for (const [spelling, rawId] of this.#bySpelling) {
        if (this.#pause.isDue) await this.#pause.take();
        if (matches(spelling, literals)) return rawId;
      }
    }
    return undefined;
  }

  /** The VM whose id the text is but for its punctuation. */
  #spelled(text: string): string | undefined {
    if (text.length > WORDS_LIMIT) return undefined;
    return this.#bySpelling.get(words(text)) ?? this.#bySpelling.get(digits(text));
  }

  /** The VM whose id stands within the text. An id may itself hold a slash or a dot. */
  async #within(text: string): Promise<string | undefined> {
    const places = [0];
    const add = (place: number) => {
      if (places.at(-1) !== place) places.push(place);
    };
    for (let i = 0; i < text.length; i++) {
      if (this.#pause.isDue) await this.#pause.take();
      if (!BESIDE_IDS.test(text[i] as string)) continue;
      add(i);
      add(i + 1);
    }
    add(text.length);
    for (const [i, start] of places.entries()) {
      if (this.#pause.isDue) await this.#pause.take();
      for (let k = i + 1; k < places.length && (places[k] as number) - start <= this.#longest; k++) {
        const found = this.#bySpelling.get(text.slice(start, places[k]));
        if (found !== undefined) return found;
      }
    }
    return undefined;
  }

  /** The VM whose id begins as one that the text shows a part of: the rest is left out, or on the next line. */
  async #begunIn(text: string): Promise<string | undefined> {
    for (const [begun] of text.matchAll(CUT_SHORT)) {
      const found = await this.beginningWith(begun);
      if (found !== undefined) return found;
    }
    return undefined;
  }
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
