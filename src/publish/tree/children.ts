// The files in one folder, by name. Many maps: one large map holds the event loop each time that it grows. A name is in
// the first, or in those of its part: to look into all maps would take minutes for a million names.

const MAP_LIMIT = 8192;
/** So many that a part has one map, unless the names are made to fall into the same part. */
const PARTS = 512;

export class Children<Node> {
  readonly #first = new Map<string, Node>();
  readonly #parts: Map<string, Node>[][] = [];

  get size(): number {
    return this.#maps().reduce((sum, { size }) => sum + size, 0);
  }

  get(name: string): Node | undefined {
    return this.#mapWith(name)?.get(name);
  }

  has(name: string): boolean {
    return this.#mapWith(name) !== undefined;
  }

  set(name: string, node: Node): void {
    (this.#mapWith(name) ?? this.#mapFor(name)).set(name, node);
  }

  delete(name: string): void {
    this.#mapWith(name)?.delete(name);
  }

  /** The first thousands in the order in which they were added. */
  *keys(): Iterable<string> {
    for (const map of this.#maps()) yield* map.keys();
  }

  #maps(): Map<string, Node>[] {
    return [this.#first, ...this.#parts.flat()];
  }

  #mapWith(name: string): Map<string, Node> | undefined {
    if (this.#first.has(name)) return this.#first;
    if (this.#parts.length === 0) return undefined;
    return this.#parts[partOf(name)]?.find((map) => map.has(name));
  }

  #mapFor(name: string): Map<string, Node> {
    if (this.#first.size < MAP_LIMIT) return this.#first;
    while (this.#parts.length < PARTS) this.#parts.push([]);
    const maps = this.#parts[partOf(name)] as Map<string, Node>[];
    const last = maps.at(-1);
    if (last !== undefined && last.size < MAP_LIMIT) return last;
    const added = new Map<string, Node>();
    maps.push(added);
    return added;
  }
}

/** FNV-1a. */
function partOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return (hash >>> 0) % PARTS;
}
