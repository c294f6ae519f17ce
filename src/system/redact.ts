// Takes secrets out of what others say: a registry may repeat what it was sent.

/** A shorter one would be found in other words as well. */
const SHORTEST = 4;

/** Each in whatever of its spellings is found. */
export function redact(text: string, secrets: readonly string[]): string {
  const spellings = secrets.flatMap((secret) => [secret, encodeURIComponent(secret)]);
  // The longest first: a password is a part of a login.
  const found = spellings.filter(({ length }) => length >= SHORTEST).sort((a, b) => b.length - a.length);
  return found.reduce((rest, secret) => rest.replaceAll(secret, '[hidden]'), text);
}

/** The queries of URLs: storage is asked by URLs whose query is a signature. */
export function withoutQueries(text: string): string {
  return text.replace(/([a-z]+:\/\/[^\s"?\\]+)\?(?:[^\s"\\]|\\[^"])*/gi, '$1');
}
