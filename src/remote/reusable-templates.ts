// Which templates of this host a pull may take chunks from.

import { stat } from 'node:fs/promises';
import type { Catalog } from '../catalog/catalog.js';
import type { StackName } from '../catalog/stack-name.js';
import type { Template } from '../catalog/template.js';
import { RootfsError } from '../system/errors.js';
import { mapInSlices } from '../system/map-in-slices.js';
import { sortedBy } from '../system/sorted-names.js';
import type { Task } from '../system/task.js';
import type { KnownChunks } from './known-chunks.js';

// Templates that have to be read for their digest or their chunks: more would take longer than fetching.
const READ_AT_MOST = 8;

// To read and cut so many bytes takes about as long as to fetch one at 1 Gb/s.
const READ_PER_FETCHED = 8;

// Less takes a tenth of a second, and saves the registry's bytes.
const ALWAYS_READ_BYTES = 64 * 1024 * 1024;

// To read and compare a list of chunks takes about as long as to read and cut so many bytes, and this share of its
// image.
const LIST_BYTES = 1024 * 1024;
const LIST_SHARE = 1 / 400;

// Later than any time that a file can have.
const FAR_FUTURE_NS = 2n ** 64n;

/** By its digest too, if that is known. */
export type IsLikely = (template: Pick<Template, 'path' | 'sha256'>) => boolean;

/**
 * First those that are likely to have the chunks, then those with known chunks, then the newest of the others, and last
 * those that were never hashed. Those that are not likely are left out if to fetch what is missing by then takes no
 * longer than to read them, or all lists so far. Without `readsOthers`, so are all without known chunks; of those that
 * were never hashed, it hashes the ones that may have some, by their length.
 */
export async function* reusableTemplates(
  task: Task,
  catalog: Catalog,
  known: KnownChunks,
  isLikely: IsLikely,
  missingBytes: () => number,
  readsOthers = true,
): AsyncGenerator<Template, void, undefined> {
  const cut = await known.names();
  const rank = (template: Template) => (isLikely(template) ? 0 : cut.has(template.sha256) ? 1 : 2);
  const age = ({ identity }: Template) => `${FAR_FUTURE_NS - identity.mtimeNs}`.padStart(20, '0');
  const read = { templates: 0, bytes: 0, ofLists: 0 };
  const limit = () => Math.max(ALWAYS_READ_BYTES, READ_PER_FETCHED * missingBytes());
  const isWorthReading = async (path: string, times: number) => {
    const bytes = read.bytes + times * (await bytesOnDisk(path));
    if (read.templates === READ_AT_MOST || bytes > limit()) return false;
    read.templates++;
    read.bytes = bytes;
    return true;
  };
  const isWorthComparing = async (path: string) => {
    if (read.ofLists > limit()) return false;
    read.ofLists += LIST_BYTES + LIST_SHARE * (await bytesOnDisk(path));
    return true;
  };
  const ranked = await mapInSlices(await catalog.known(task.signal), (template) => ({
    template,
    rank: rank(template),
  }));
  const sorted = await sortedBy(ranked, (each) => `${each.rank} ${age(each.template)} ${each.template.path}`);
  for (const { template } of sorted) {
    const isWorth = cut.has(template.sha256)
      ? isLikely(template) || (await isWorthComparing(template.path))
      : readsOthers && (await isWorthReading(template.path, 1));
    if (isWorth) yield template;
  }
  const templates = await catalog.templates(task.signal);
  const lengths = readsOthers ? undefined : await lengthsOfOthers(known, cut, templates);
  for (const [name, template] of templates) {
    if (template !== undefined) continue;
    const path = catalog.templatePath(name);
    if (lengths !== undefined && !lengths.has((await stat(path).catch(() => undefined))?.size ?? 0)) continue;
    // Once for its digest, once for its chunks.
    if (!isLikely({ path, sha256: '' }) && !(await isWorthReading(path, readsOthers ? 2 : 1))) continue;
    const hashed = await hashTemplate(task, catalog, name);
    if (hashed !== undefined) yield hashed;
  }
}

/** Of the images whose chunks are known, and that are no template of known digest. */
async function lengthsOfOthers(
  known: KnownChunks,
  cut: ReadonlySet<string>,
  templates: ReadonlyMap<StackName, Template | undefined>,
): Promise<ReadonlySet<number>> {
  const others = new Set(cut);
  for (const template of templates.values()) if (template !== undefined) others.delete(template.sha256);
  const lengths = new Set<number>();
  for (const sha256 of others) lengths.add(await known.lengthOf(sha256));
  return lengths;
}

/** A template that cannot be used now is no help, and no obstacle. */
async function hashTemplate(task: Task, catalog: Catalog, name: StackName): Promise<Template | undefined> {
  await catalog.stack(name, task.signal).catch((error) => {
    task.checkAborted();
    if (!(error instanceof RootfsError)) throw error;
  });
  return (await catalog.templates(task.signal)).get(name);
}

/** Without its holes. */
async function bytesOnDisk(path: string): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  return found === undefined ? 0 : found.blocks * 512;
}
