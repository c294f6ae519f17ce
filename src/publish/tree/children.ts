// The files in one folder, by name. Many maps: one large map holds the event loop each time that it grows.

const MAP_LIMIT = 8192;

export class Children<Node> {
  readonly #maps: Map<string, Node>[] = [new Map()];

  get size(): number {
    return this.#maps.reduce((sum, { size }) => sum + size, 0);
  }

  get(name: string): Node | undefined {
    return this.#maps.find((map) => map.has(name))?.get(name);
  }

  has(name: string): boolean {
    return this.#maps.some((map) => map.has(name));
  }

  set(name: string, node: Node): void {
    const last = this.#maps.at(-1) as Map<string, Node>;
    const map = this.#maps.find((map) => map.has(name)) ?? last;
    map.set(name, node);
    if (last.size >= MAP_LIMIT) this.#maps.push(new Map());
  }

  delete(name: string): void {
    for (const map of this.#maps) map.delete(name);
  }

  /** In the order in which they were added. */
  *keys(): Iterable<string> {
    for (const map of this.#maps) yield* map.keys();
  }

  *values(): Iterable<Node> {
    for (const map of this.#maps) yield* map.values();
  }
}
