// What the library has promised of each snapshot, stack and exported image so far, and what of them is there after a
// cut.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { RootfsRegistry } from '../../src/index.js';
import { ABSENT, type DiskState, keyOf, readState, type StateKey } from '../fixtures/disk-states.js';
import { exists, sha256Of } from '../fixtures/files.js';
import type { CutHost } from './host.js';

/** Of one thing, if the power is cut now. */
export interface PromisedThing {
  readonly possible: ReadonlySet<StateKey>;
  /** The digests of the templates that it may descend from. */
  readonly templates: ReadonlySet<string>;
  /** Nobody has flushed it: it may be there in part. */
  readonly mayBeTorn: boolean;
}

const NOTHING: PromisedThing = { possible: new Set([ABSENT]), templates: new Set(), mayBeTorn: false };

export class PromisedThings {
  readonly #things = new Map<string, PromisedThing>();

  begin(name: string, next: DiskState | undefined, durable: boolean): void {
    const { possible, templates, mayBeTorn } = this.#things.get(name) ?? NOTHING;
    const isExport = name.startsWith('export');
    this.#things.set(name, {
      possible: new Set([...possible, stateKey(next)]),
      templates: new Set([...templates, ...(next === undefined ? [] : [next.sha256])]),
      // Until the call has resolved its name may be there and its data not: it is not in a folder of ours.
      mayBeTorn: mayBeTorn || (isExport && next !== undefined && !durable),
    });
  }

  resolved(name: string, now: DiskState | undefined, durable: boolean): void {
    const { possible, templates, mayBeTorn } = this.#things.get(name) ?? NOTHING;
    if (durable) this.#things.set(name, { possible: new Set([stateKey(now)]), templates, mayBeTorn: false });
    else this.#things.set(name, { possible, templates, mayBeTorn });
  }

  now(): Map<string, PromisedThing> {
    return new Map(this.#things);
  }
}

/** Each is as promised, to the byte. */
export async function expectThings(
  host: CutHost,
  registry: RootfsRegistry,
  things: ReadonlyMap<string, PromisedThing>,
): Promise<void> {
  for (const [thing, { possible, templates, mayBeTorn }] of things) {
    const image = imageOf(host, thing);
    const there = await exists(image);
    const states = await Promise.all(
      [...templates].map((sha256) => readState(image, sha256, host.pristine, host.markOffset('ext4'))),
    );
    const state = states.find((one) => one !== undefined);
    if (there && state === undefined && mayBeTorn) continue;
    if (there) expect(state, `${thing} is whole`).toBeDefined();
    expect([...possible], thing).toContain(stateKey(state));
    const [kind, name = ''] = thing.split(' ');
    if (there && kind === 'snapshot') await registry.verifySnapshot(name);
    if (there && kind === 'stack')
      expect((await registry.stack(name))?.sha256, `the digest of ${thing}`).toBe(await sha256Of(image));
  }
  await expectNoOthers(host, registry, things);
}

/** Nothing is there in part, and nothing that nobody asked for. */
async function expectNoOthers(
  host: CutHost,
  registry: RootfsRegistry,
  things: ReadonlyMap<string, PromisedThing>,
): Promise<void> {
  for await (const { name } of registry.snapshots()) expect([...things.keys()]).toContain(`snapshot ${name}`);
  const snapshots = join(host.clonesDir, '.microvm-rootfs/snapshots');
  for (const name of (await exists(snapshots)) ? await readdir(snapshots) : []) {
    if (name.startsWith('.')) continue;
    expect([...things.keys()]).toContain(`snapshot ${name}`);
    expect(await readFile(join(snapshots, name, 'SHA256SUMS'), 'utf8'), `snapshot ${name}`).not.toBe('');
  }
}

function imageOf(host: CutHost, thing: string): string {
  const [kind, name = ''] = thing.split(' ');
  if (kind === 'export') return join(host.jail, name);
  const folder = kind === 'stack' ? host.templateDir : join(host.clonesDir, '.microvm-rootfs/snapshots');
  return join(folder, name, 'rootfs.ext4');
}

function stateKey(state: DiskState | undefined): StateKey {
  return state === undefined ? ABSENT : keyOf(state);
}
