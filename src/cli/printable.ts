// Controls, letters without a shape, as those that turn the direction of writing, and line and paragraph separators.
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** A name from disk as a terminal may be shown it: nothing in it moves the cursor or breaks the line. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
  });
}

/**
 * A JSON document of such names. JSON.stringify escapes some of these characters, and leaves those at which programs
 * that read line by line may break a line.
 */
export function printableJson(document: object, indent?: number): string {
  const escapeOf = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
  // The line breaks of the document are its own.
  return JSON.stringify(document, null, indent).replace(UNPRINTABLE, (character) =>
    character === '\n' ? character : character.replace(/[\s\S]/g, escapeOf),
  );
}
