// Reads lists of VM ids. What a person sees on a line counts. A line that could mean another VM is refused.
import { RootfsError } from '../index.js';
import { Pause } from '../system/pause.js';
import { folded, unquoted, visible } from './id-spellings.js';
import { MeantIds } from './meant-ids.js';
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
  const byLooks = await groupByLooks(existing, pause);
  const named = new Set<string>();
  const unmatched: ListedId[] = [];
  for (const listed of list) {
    if (pause.isDue) await pause.take();
    const found = byLooks.get(visible(listed.id));
    if (found === undefined) unmatched.push(listed);
    else for (const rawId of found) named.add(rawId);
  }
  if (unmatched.length === 0) return named;
  const others = new MeantIds(pause);
  for (const rawId of existing) {
    if (pause.isDue) await pause.take();
    if (!named.has(rawId)) others.add(rawId);
  }
  for (const listed of unmatched) await refuseIfMeant(listed, others);
  return named;
}

async function groupByLooks(ids: Iterable<string>, pause: Pause): Promise<Map<string, string[]>> {
  const byLooks = new Map<string, string[]>();
  for (const rawId of ids) {
    if (pause.isDue) await pause.take();
    const looks = visible(rawId);
    const alike = byLooks.get(looks);
    if (alike === undefined) byLooks.set(looks, [rawId]);
    else alike.push(rawId);
  }
  return byLooks;
}

/** Throws if the listed id, which names no VM, may mean one of the others. */
async function refuseIfMeant({ id, where, hasNoEnd }: ListedId, others: MeantIds): Promise<void> {
  const refusal = (rest: string) =>
    new RootfsError('INVALID_ARGUMENT', `${where} is ${JSON.stringify(id)}${rest}`);
  for (const spelling of new Set([id, unquoted(id)])) {
    const text = folded(spelling);
    const shown = await others.shownIn(text);
    const meant = shown ?? (await others.ofPattern(text));
    if (meant === undefined) continue;
    const why =
      shown === undefined
        ? `Patterns and words such as "all" are not understood, and it may mean ${JSON.stringify(meant)}.`
        : `No VM has that id; did you mean ${JSON.stringify(meant)}?`;
    throw refusal(`. ${why} Write one id per line, and nothing else`);
  }
  const cutOff = hasNoEnd ? await others.beginningWith(folded(id)) : undefined;
  if (cutOff === undefined) return;
  throw refusal(
    `, without a line end: the list may be cut off there, and may mean ${JSON.stringify(cutOff)}. ` +
      'Write the list again; if it is whole, end its last line',
  );
}

function requireNoControls(listed: ListedId): ListedId {
  if (!/[^\P{Cc}\t]/u.test(listed.id)) return listed;
  throw new RootfsError(
    'INVALID_ARGUMENT',
    `${listed.where} holds a control character: ${JSON.stringify(listed.id)}. Write one id a line`,
  );
}
