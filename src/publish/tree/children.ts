// The files in one folder, by name. One large map would hold the event loop each time that it grows. So a large folder
// has many small ones, by hash: to look through them one after the other would take seconds for 500,000 files.
import { partOf } from '../../system/large-set.js';

// To move so many takes a millisecond.
const ONE_MAP_LIMIT = 8192;
const PARTS = 1024;

export class Children<Node> {
  #maps: Map<string, Node>[] = [new Map()];

  get size(): number {
    return this.#maps.reduce((sum, { size }) => sum + size, 0);
  }

  get(name: string): Node | undefined {
    return this.#mapOf(name).get(name);
  }

  has(name: string): boolean {
    return this.#mapOf(name).has(name);
  }

  set(name: string, node: Node): void {
    const map = this.#mapOf(name).set(name, node);
    if (this.#maps.length > 1 || map.size <= ONE_MAP_LIMIT) return;
    this.#maps = Array.from({ length: PARTS }, () => new Map());
    for (const [moved, its] of map) this.#mapOf(moved).set(moved, its);
  }

  delete(name: string): void {
    this.#mapOf(name).delete(name);
  }

  /** In no order. */
  *keys(): Iterable<string> {
    for (const map of this.#maps) yield* map.keys();
  }

  #mapOf(name: string): Map<string, Node> {
    return this.#maps[partOf(name, this.#maps.length)] as Map<string, Node>;
  }
}
