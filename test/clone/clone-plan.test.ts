// How a request becomes a plan for the addon: which rungs it allows, and when an earlier plan serves again.
import { expect, test } from 'vitest';
import { RUNG } from '../../src/addon/native.js';
import type { Template } from '../../src/catalog/template.js';
import type { CloneOptions } from '../../src/clone/clone-options.js';
import { ClonePlans, growsTo, poolKey } from '../../src/clone/clone-plan.js';
import type { CloneSource } from '../../src/sealed/clone-source.js';
import { type CloneParts, cloneParts } from '../fixtures/clone-parts.js';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { thrown } from '../fixtures/rejection.js';

const BYTES = 'debian';
const ALL_RUNGS = RUNG.reflink | RUNG.hardlink | RUNG.copy;

interface Planned {
  readonly parts: CloneParts;
  readonly template: Template;
  readonly source: CloneSource;
  readonly plans: ClonePlans;
  /** The plan for these options. */
  plan(
    options?: CloneOptions,
    change?: Partial<Template>,
    source?: CloneSource,
  ): ReturnType<ClonePlans['for']>;
}

async function planned(): Promise<Planned> {
  const host = await Host.in();
  const path = await host.addTemplate('debian', BYTES);
  const parts = cloneParts(host);
  const template = (await parts.templates.look(path, undefined)) as Template;
  const { source: opened } = parts.templates.remembered(path) as NonNullable<
    ReturnType<typeof parts.templates.remembered>
  >;
  await parts.folder.use(() => parts.stacks.record(template.sha256, 'debian'));
  const source = { source: opened, identity: template.identity, sealed: false };
  const plans = new ClonePlans(parts.stacks);
  const plan: Planned['plan'] = (options = {}, change = {}, from = source) => {
    const of = Object.keys(change).length === 0 ? template : { ...template, ...change };
    const request = parts.request('vm', 'debian', options);
    return plans.for(request, of, from, growsTo(request, of));
  };
  return { parts, template, source, plans, plan };
}

/** A sealed image is a file of its own. */
function sealedOf(source: CloneSource): CloneSource {
  return { ...source, identity: { ...source.identity, inode: source.identity.inode + 1n }, sealed: true };
}

test('equal options have one plan, and each option that a slot is made by has its own', async () => {
  const { plan, plans, parts, template, source } = await planned();
  const kinds: CloneOptions[] = [
    {},
    { writable: true },
    { sizeBytes: 4096 },
    { owner: { uid: 1, gid: 2 } },
    { owner: { uid: 2, gid: 1 } },
    { mode: 0o640 },
    { mode: 0 },
    { durable: true },
  ];
  const made = kinds.map((options) => plan(options));
  expect(new Set(made).size).toBe(kinds.length);
  kinds.forEach((options, i) => {
    expect(plan({ ...options })).toBe(made[i]);
  });
  // The same, said in other words.
  expect(plan({ writable: false })).toBe(made[0]);
  expect(plan({ sizeBytes: template.identity.sizeBytes, durable: false })).toBe(made[0]);
  const other = parts.request('vm', 'other', {});
  expect(plans.for(other, template, source, undefined)).not.toBe(made[0]);
});

test('a template that was looked at again gets new plans, since the addon compares the file with them', async () => {
  const { plan, plans, parts, template, source } = await planned();
  const before = plan();
  const identity = { ...template.identity };
  // The library keeps one object for a template and gives it a new identity.
  (template as { identity: Template['identity'] }).identity = identity;
  const after = plans.for(parts.request('vm', 'debian'), template, { ...source, identity }, undefined);
  expect(after).not.toBe(before);
  expect(after.slotPlan.expected).toBe(identity);
  expect(after.slotPlan.templateExpected).toBe(identity);
});

test('hundreds of kinds of clones leave the newest 64 plans', async () => {
  const { plan } = await planned();
  const made = Array.from({ length: 200 }, (_, i) => plan({ mode: i }));
  for (let i = 199; i >= 200 - 64; i--) expect(plan({ mode: i }), `${i}`).toBe(made[i]);
  expect(plan({ mode: 199 - 64 })).not.toBe(made[199 - 64]);
});

test('only a clone that nobody writes to, of the template itself and at its size, may be a hardlink', async () => {
  const { plan, source } = await planned();
  const sealed = sealedOf(source);
  expect(plan().slotPlan.rungs).toBe(ALL_RUNGS);
  expect(plan({ writable: false }).slotPlan.rungs).toBe(ALL_RUNGS);
  for (const { slotPlan } of [
    plan({ writable: true }),
    plan({ sizeBytes: 4096 }),
    plan({}, {}, sealed),
    plan({ sizeBytes: 4096 }, {}, sealed),
  ]) {
    expect(slotPlan.rungs).toBe(RUNG.reflink | RUNG.copy);
  }
});

test('an image that has to grow gets owner and mode afterwards, a sealed one has its size already', async () => {
  const { plan, source } = await planned();
  const owner = { uid: 1000, gid: 1000 };
  expect(plan({ owner, mode: 0o640 }).slotPlan).toMatchObject({ owner, mode: 0o640 });
  const growing = plan({ sizeBytes: 4096, owner, mode: 0o640 });
  expect(growing).toMatchObject({ owner, mode: 0o640, sizeStamp: 4096 });
  expect(growing.slotPlan).not.toHaveProperty('owner');
  expect(growing.slotPlan).not.toHaveProperty('mode');
  const sealed = plan({ sizeBytes: 4096, owner, mode: 0o640 }, {}, sealedOf(source));
  expect(sealed.slotPlan).toMatchObject({ owner, mode: 0o640 });
});

test('a slot says in files what its image does not tell: digest, grown size, other stack', async () => {
  const { plan, plans, parts, template, source } = await planned();
  const digest = ['rootfs.ext4.sha256', sha256(BYTES)];
  expect(plan().slotPlan.sidecars).toEqual(digest);
  expect(plan({ sizeBytes: 4096 }).slotPlan.sidecars).toEqual([...digest, 'rootfs.ext4.size', '4096']);
  const other = parts.request('vm', 'other', { sizeBytes: 4096 });
  expect(plans.for(other, template, source, 4096).slotPlan.sidecars).toEqual([
    ...digest,
    ...['rootfs.ext4.stack', 'other'],
    ...['rootfs.ext4.size', '4096'],
  ]);
});

test('a clone grows from the next byte on, keeps its size at the template’s, and is never shorter', async () => {
  const { parts, template } = await planned();
  const { sizeBytes } = template.identity;
  const of = (size?: number) =>
    parts.request('vm', 'debian', size === undefined ? {} : { sizeBytes: size, writable: true });
  expect(growsTo(of(), template)).toBeUndefined();
  expect(growsTo(of(sizeBytes), template)).toBeUndefined();
  expect(growsTo(of(sizeBytes + 1), template)).toBe(sizeBytes + 1);
  for (const size of [sizeBytes - 1, 0]) {
    const error = thrown(() => growsTo(of(size), template), 'SHRINK_REFUSED');
    expect(error.message).toContain(template.path);
    thrown(() => poolKey(of(size), template), 'SHRINK_REFUSED');
  }
  expect(poolKey(of(sizeBytes), template)).toEqual(poolKey(of(), template));
  expect(poolKey(of(sizeBytes + 1), template).grownTo).toBe(sizeBytes + 1);
});
