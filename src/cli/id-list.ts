// Reads lists of VM ids. What a person sees on a line counts. A line that could mean another VM is refused.
import { RootfsError } from '../index.js';
import { nameOfInput, readText } from './text-input.js';

/** An id of a list, and where it stands, for messages. */
export interface ListedId {
  readonly id: string;
  readonly where: string;
}

// Everything that editors show as a line break.
const LINE_END = /\r\n|[\n\v\f\r\u0085\u2028\u2029]/;

// What can surround an id in JSON, CSV or a commented list.
const AROUND_IDS = /[\s"'`,;:|=#()[\]{}<>]+/;

/** The ids of a file, one a line, without empty lines and the space around each. `-` is standard input. */
export async function readIdList(path: string, signal?: AbortSignal): Promise<ListedId[]> {
  const name = nameOfInput(path);
  return (await readText(path, signal))
    .split(LINE_END)
    .map((line, i) => ({ id: visible(line), where: `line ${i + 1} of ${name}` }))
    .filter(({ id }) => id !== '')
    .map(requireNoControls);
}

/**
 * The raw ids among `existing` that the list names. A listed id names a VM that looks the same: the forms of Unicode
 * and characters that nobody sees do not count. Throws `INVALID_ARGUMENT` for a listed id that names no VM but contains
 * the name of one that is not on the list, or differs from it only in case: `"vm-1",`, `vm-1 # the first`, `VM-1`.
 */
export function namedIn(list: readonly ListedId[], existing: Iterable<string>): Set<string> {
  const rawIds = [...existing];
  const byLooks = new Map<string, string[]>();
  for (const rawId of rawIds) byLooks.set(visible(rawId), [...(byLooks.get(visible(rawId)) ?? []), rawId]);
  const named = new Set<string>();
  const unmatched: ListedId[] = [];
  for (const listed of list) {
    const found = byLooks.get(visible(listed.id));
    if (found === undefined) unmatched.push(listed);
    else for (const rawId of found) named.add(rawId);
  }
  const inAnyCase = new Map(rawIds.map((rawId) => [visible(rawId).toLowerCase(), rawId]));
  for (const { id, where } of unmatched) {
    const parts = [visible(id), ...visible(id).split(AROUND_IDS)];
    // An id may hold a slash, and a line may be the path of a slot.
    for (const part of [...parts, ...parts.flatMap((each) => each.split('/'))]) {
      const meant = inAnyCase.get(part.toLowerCase());
      if (meant === undefined || named.has(meant)) continue;
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `${where} is ${JSON.stringify(id)}, which no VM is called, but it may mean the VM ${JSON.stringify(meant)}: ` +
          'write one id per line, and nothing else',
      );
    }
  }
  return named;
}

/** A text as people see it: one Unicode form, no invisible characters, no space around it. */
function visible(text: string): string {
  return text
    .normalize('NFC')
    .replace(/\p{Cf}/gu, '')
    .trim();
}

function requireNoControls(listed: ListedId): ListedId {
  if (!/[^\P{Cc}\t]/u.test(listed.id)) return listed;
  throw new RootfsError(
    'INVALID_ARGUMENT',
    `${listed.where} holds a control character: ${JSON.stringify(listed.id)}. Write one id a line`,
  );
}
