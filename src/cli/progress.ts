// Shows progress on a terminal, for work that takes longer than half a second.
import type { Progress } from '../index.js';
import { printable } from './printable.js';
import { formatSize } from './sizes.js';

const PATIENCE_MS = 500;
const REDRAW_MS = 100;
const BAR_CELLS = 24;

/** Progress of work in several steps, each with bytes of its own. */
export interface SteppedProgress extends Progress {
  readonly step?: keyof typeof STEPS;
  /** Bytes that were there already. */
  readonly reusedBytes?: number;
}

const STEPS = {
  read: 'reading',
  hash: 'hashing',
  cut: 'reading',
  reuse: 'copying',
  upload: 'sending',
  download: 'fetching',
  unpack: 'unpacking',
  check: 'checking',
} as const;

// Hangul Jamo, the first block of East Asian Width W (Unicode, UAX 11).
const FIRST_WIDE = 0x1100;

const CLEAR_LINE = '\r\u001b[K';

export class ProgressLine {
  readonly #label: string;
  readonly #stream: NodeJS.WriteStream;
  readonly #started = performance.now();
  #stepStarted = this.#started;
  readonly #timer: NodeJS.Timeout | undefined;
  #latest: SteppedProgress | undefined;
  #drawn = false;

  /** Draws only where `stream` is a terminal. */
  constructor(label: string, wanted: boolean, stream: NodeJS.WriteStream = process.stderr) {
    this.#label = printable(label);
    this.#stream = stream;
    // A dumb terminal cannot erase a line.
    if (!wanted || !stream.isTTY || process.env.TERM === 'dumb') return;
    this.#timer = setInterval(() => {
      if (performance.now() - this.#started >= PATIENCE_MS) this.#draw();
    }, REDRAW_MS);
    this.#timer.unref();
  }

  readonly update = (progress: SteppedProgress): void => {
    if (this.#latest !== undefined && progress.step !== this.#latest.step)
      this.#stepStarted = performance.now();
    this.#latest = progress;
  };

  /** Takes the line away again. */
  stop(): void {
    clearInterval(this.#timer);
    if (this.#drawn) this.#stream.write(CLEAR_LINE);
    this.#drawn = false;
  }

  #draw(): void {
    const step = this.#latest?.step;
    const label = step === undefined ? this.#label : `${this.#label}: ${STEPS[step]}`;
    const { reusedBytes = 0 } = this.#latest ?? {};
    const reused = reusedBytes > 0 ? `  ${formatSize(reusedBytes)} reused` : '';
    const text = progressText(label, this.#latest, performance.now() - this.#stepStarted) + reused;
    // A wrapped line could not be erased.
    const width = (this.#stream.columns || 80) - 1;
    this.#stream.write(CLEAR_LINE + cutTo(width, text));
    this.#drawn = true;
  }
}

/** As much of a text as fits into so many cells. Outside of the first scripts, a letter may take two. */
export function cutTo(cells: number, text: string): string {
  let left = cells;
  let end = 0;
  for (const character of text) {
    left -= (character.codePointAt(0) as number) < FIRST_WIDE ? 1 : 2;
    if (left < 0) break;
    end += character.length;
  }
  return text.slice(0, end);
}

/**
 * `hashing a  [######------------------]  25 %  1 GiB of 4 GiB  6 s left`; without a total, how long it takes already.
 */
export function progressText(label: string, latest: Progress | undefined, elapsedMs: number): string {
  if (latest === undefined || latest.bytesTotal === 0) return `${label}  ${Math.floor(elapsedMs / 1000)} s`;
  const { bytesDone, bytesTotal } = latest;
  const share = Math.min(1, bytesDone / bytesTotal);
  const filled = Math.floor(share * BAR_CELLS);
  const bar = '#'.repeat(filled) + '-'.repeat(BAR_CELLS - filled);
  const left = share > 0 ? `  ${Math.ceil((elapsedMs * (1 - share)) / share / 1000)} s left` : '';
  const percent = `${Math.floor(share * 100)}`.padStart(3);
  return `${label}  [${bar}] ${percent} %  ${formatSize(bytesDone)} of ${formatSize(bytesTotal)}${left}`;
}
