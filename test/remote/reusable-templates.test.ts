import { expect, test } from 'vitest';
import type { Catalog } from '../../src/catalog/catalog.js';
import type { Template } from '../../src/catalog/template.js';
import type { KnownChunks } from '../../src/remote/known-chunks.js';
import { reusableTemplates } from '../../src/remote/reusable-templates.js';
import { Task } from '../../src/system/task.js';
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
  const isLikely = ({ sha256 }: Template) => sha256 === '5';
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
