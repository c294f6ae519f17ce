import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Catalog } from '../../src/catalog/catalog.js';
import type { Template } from '../../src/catalog/template.js';
import type { KnownChunks } from '../../src/remote/known-chunks.js';
import { type IsLikely, reusableTemplates } from '../../src/remote/reusable-templates.js';
import { Task } from '../../src/system/task.js';
import { Host } from '../fixtures/host.js';
import { GiB, MiB } from '../fixtures/images.js';

/** What a pull takes from a host with a thousand templates, each newer than the one before, whose chunks are known. */
async function taken(missingBytes: number): Promise<string[]> {
  const templates = Array.from({ length: 1000 }, (_, i) => ({
    path: `/nonexistent/${i}`,
    sha256: `${i}`,
    identity: { mtimeNs: BigInt(i) },
  })) as unknown as Template[];
  const catalog = { known: async () => templates, templates: async () => new Map() } as unknown as Catalog;
  const known = {
    names: async () => new Set(templates.map(({ sha256 }) => sha256)),
  } as unknown as KnownChunks;
  const isLikely: IsLikely = ({ sha256 }) => sha256 === '5';
  const found: string[] = [];
  const task = new Task('a pull', undefined);
  for await (const { sha256 } of reusableTemplates(task, catalog, known, isLikely, () => missingBytes))
    found.push(sha256);
  return found;
}

test('a small pull compares with the likely template and the newest, a large one with all', async () => {
  const few = await taken(3 * MiB);
  expect(few.slice(0, 4)).toEqual(['5', '999', '998', '997']);
  expect(few.length).toBeGreaterThan(20);
  expect(few.length).toBeLessThan(100);
  expect(await taken(GiB)).toHaveLength(1000);
});

test('to tell what is missing, a few templates are hashed of those that known chunks may be of', async () => {
  const { root } = await Host.in();
  const names = Array.from({ length: 30 }, (_, i) => `${i}`);
  for (const name of names) await writeFile(join(root, name), name.padEnd(Number(name) < 10 ? 1000 : 2000));
  const hashed: string[] = [];
  const catalog = {
    known: async () => [],
    templates: async () => new Map(names.map((name) => [name, undefined])),
    templatePath: (name: string) => join(root, name),
    stack: async (name: string) => void hashed.push(name),
  } as unknown as Catalog;
  const asked: string[] = [];
  const known = {
    names: async () => new Set(['a', 'b']),
    lengthOf: async (sha256: string) => {
      asked.push(sha256);
      return 2000;
    },
  } as unknown as KnownChunks;
  const task = new Task('a look', undefined);
  for await (const _ of reusableTemplates(
    task,
    catalog,
    known,
    () => false,
    () => GiB,
    false,
  ));
  expect(hashed).toEqual(names.slice(10, 18));
  expect(asked).toEqual(['a', 'b']);
});
