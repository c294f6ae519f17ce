// Samples in alternation: each contestant has its turn in each round, in a new order each round, so that whatever else
// the machine does hits all alike. A turn is short, and what a turn begins with is not counted: spawning a program
// makes the kernel write-protect the parent's memory, and whoever comes next in this process would pay for the peer's
// spawn with a page fault on every page it touches.
import { summarize } from './statistics.mjs';

/**
 * One way to do a piece of work.
 * @typedef {object} Contestant
 * @property {string} name
 * @property {string} does what exactly a sample does
 * @property {() => Promise<number>} [sample] does the work once; resolves to nanoseconds, or what else the measure
 * counts
 * @property {number} [amount] that one sample does, for a rate
 * @property {() => Promise<void>} [afterEach] not timed
 * @property {() => Promise<void>} [clean] not timed: removes what the samples left
 * @property {() => string | undefined} [note] what else is to be said at the end
 * @property {string} [unavailable] why it cannot be measured with this build of the library
 */

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {string} does
 * @property {string} [unavailable]
 * @property {string} [failed]
 * @property {import('./statistics.mjs').Summary} [summary]
 * @property {string} [note]
 * @property {number} [amount]
 */

/**
 * @typedef {object} Effort
 * @property {number} rounds
 * @property {number} seconds no new round is begun after these, once there were `leastRounds`
 * @property {number} leastRounds
 * @property {Turn} turn
 * @property {number} warmUps samples of each, before the first round, in at most `warmUpSeconds`: code is compiled,
 * caches fill
 * @property {number} warmUpSeconds
 * @property {number} cleanEvery rounds
 */

/** @typedef {{ thrownAway: number, counted: number }} Turn */

/** For samples that are long by themselves. @type {Turn} */
export const ONE_SAMPLE = { thrownAway: 0, counted: 1 };

/** Of a measure of which one sample tells all. */
export const ONCE = {
  full: { rounds: 1, seconds: 60 },
  quick: { rounds: 1, seconds: 1 },
  turn: ONE_SAMPLE,
  warmUps: 0,
};

/**
 * @param {Contestant[]} contestants
 * @param {Effort} effort
 * @returns {Promise<Row[]>} in the contestants' order
 */
export async function alternate(contestants, effort) {
  const entrants = contestants.map((contestant) => new Entrant(contestant));
  for (const entrant of entrants) {
    const end = performance.now() + effort.warmUpSeconds * 1000;
    for (let i = 0; i < effort.warmUps && (i === 0 || performance.now() < end); i++) await entrant.sample();
    await entrant.clean();
  }

  const random = seededRandom(1);
  const end = performance.now() + effort.seconds * 1000;
  for (let round = 1; round <= effort.rounds; round++) {
    if (round > effort.leastRounds && performance.now() >= end) break;
    for (const entrant of shuffled(entrants, random)) await entrant.takeTurn(effort.turn);
    if (round % effort.cleanEvery === 0) for (const entrant of entrants) await entrant.clean();
  }
  for (const entrant of entrants) await entrant.clean();
  return entrants.map((entrant) => entrant.row());
}

class Entrant {
  /** @type {number[]} */
  #samples = [];
  /** @type {string | undefined} */
  #failed;
  #contestant;

  /** @param {Contestant} contestant */
  constructor(contestant) {
    this.#contestant = contestant;
  }

  /** @param {Turn} turn */
  async takeTurn({ thrownAway, counted }) {
    for (let i = 0; i < thrownAway; i++) await this.sample();
    for (let i = 0; i < counted; i++) {
      const sample = await this.sample();
      if (sample !== undefined) this.#samples.push(sample);
    }
  }

  /** A contestant that fails drops out and is reported, the others go on. */
  async sample() {
    const { sample, afterEach } = this.#contestant;
    if (sample === undefined || this.#failed !== undefined) return undefined;
    try {
      const value = await sample();
      await afterEach?.();
      return value;
    } catch (error) {
      this.#failed = error instanceof Error ? error.message : String(error);
      return undefined;
    }
  }

  async clean() {
    try {
      await this.#contestant.clean?.();
    } catch (error) {
      this.#failed ??= error instanceof Error ? error.message : String(error);
    }
  }

  /** @returns {Row} */
  row() {
    const { name, does, unavailable, amount } = this.#contestant;
    const note = this.#contestant.note?.();
    if (unavailable !== undefined) return { name, does, unavailable };
    if (this.#failed !== undefined) return { name, does, failed: this.#failed };
    return {
      name,
      does,
      summary: summarize(this.#samples),
      ...(note && { note }),
      ...(amount && { amount }),
    };
  }
}

/**
 * @template T
 * @param {T[]} items
 * @param {() => number} random
 */
function shuffled(items, random) {
  const order = items.map((item) => ({ item, key: random() }));
  return order.sort((a, b) => a.key - b.key).map(({ item }) => item);
}

/** Mulberry32: the same orders, and the same files, in every run. @param {number} seed */
export function seededRandom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
