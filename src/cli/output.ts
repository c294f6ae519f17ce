// Prints a command's result on stdout: a table for people, one JSON document for programs.
import { printable, printableJson } from './printable.js';

interface Column<Row> {
  readonly title: string;
  readonly right?: boolean;
  readonly of: (row: Row) => string;
}

export class Output {
  readonly #json: boolean;
  readonly #stream: NodeJS.WritableStream;

  constructor(json: boolean, stream: NodeJS.WritableStream = process.stdout) {
    this.#json = json;
    this.#stream = stream;
  }

  /** Prints `document` with `--json`, otherwise the lines of `human`. */
  print(document: object, human: () => string): void {
    const text = this.#json ? printableJson(document, 2) : human();
    if (text !== '') this.#stream.write(`${text}\n`);
  }

  /** For people, beside what they asked for. */
  aside(text: string): void {
    if (!this.#json) process.stderr.write(`microvm-rootfs: ${printable(text)}\n`);
  }

  /** A line for people, as soon as there is one; programs get it all at the end. */
  line(text: () => string): void {
    if (!this.#json) this.#stream.write(`${text()}\n`);
  }
}

/** Columns as wide as they need to be, with a header; `nothing` if there are no rows. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[], nothing = 'None.'): string {
  if (rows.length === 0) return nothing;
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ of }) => printable(of(row)))),
  ];
  const widths = columns.map((_, column) =>
    cells.reduce((most, line) => Math.max(most, widthOf(line[column] ?? '')), 0),
  );
  return cells
    .map((line) =>
      line
        .map((cell, column) => {
          const padding = ' '.repeat((widths[column] ?? 0) - widthOf(cell));
          return columns[column]?.right ? padding + cell : cell + padding;
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** One thing, a fact a line. A fact that is undefined is left out. */
export function details(facts: Readonly<Record<string, string | undefined>>): string {
  const told = Object.entries(facts).filter(([, value]) => value !== undefined) as [string, string][];
  const width = Math.max(...told.map(([name]) => name.length));
  return told.map(([name, value]) => `${name.padEnd(width)}  ${printable(value)}`).join('\n');
}

/** In code points, which serves for all but wide letters and combined ones. */
function widthOf(text: string): number {
  return [...text].length;
}

/** `1 slot`, `2 slots`. */
export function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}
