// The spellings of an id: as people see it, and as other programs write it.

const DASH = /[\p{Pd}\u2212_]/gu;

/** A text as people see it: one Unicode form, no invisible characters, no space around it. */
export function visible(text: string): string {
  return text
    .normalize('NFC')
    .replace(/[\p{Cf}\p{Default_Ignorable_Code_Point}]/gu, '')
    .trim();
}

/** Whether it shows nothing: it comes from an unset variable rather than from a VM. */
export function isBlank(id: string): boolean {
  return visible(id) === '';
}

/** What people take for the same, without looking closely, and how other programs write it. */
export function folded(text: string): string {
  return visible(decoded(text)).normalize('NFKC').toLowerCase().replace(DASH, '-');
}

/** Without what people and programs write in place of other punctuation: systemd has `-` for `/`. */
export function words(text: string): string {
  return text.replace(/[^\p{L}\p{N}\p{M}]+/gu, '-').replace(/^-|-$/g, '');
}

/** A UUID or a MAC address, which some programs write without punctuation. Empty for other texts. */
export function digits(text: string): string {
  const [found = ''] = /^[\da-f]{12,}$/.exec(text.replace(/[^\p{L}\p{N}\p{M}]+/gu, '')) ?? [];
  return found;
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
export function unquoted(text: string): string {
  return text.replace(/(=[\dA-F]{2})+/g, (escapes) => textOf(escapes.split('='), 16));
}

/** The text of bytes, of which the first string stands for none. */
function textOf([, ...bytes]: readonly string[], base: number): string {
  return Buffer.from(bytes.map((byte) => Number.parseInt(byte, base))).toString();
}
