// Which templates of this host a pull may take chunks from.

import type { Catalog } from '../catalog/catalog.js';
import { parseStackName } from '../catalog/stack-name.js';
import type { Template } from '../catalog/template.js';
import { RootfsError } from '../system/errors.js';
import { mapInSlices } from '../system/map-in-slices.js';
import { sortedBy } from '../system/sorted-names.js';
import type { Task } from '../system/task.js';
import type { KnownChunks } from './known-chunks.js';

// Templates that have to be read for their digest or their chunks: more would take longer than fetching.
const READ_AT_MOST = 8;

// Later than any time that a file can have.
const FAR_FUTURE_NS = 2n ** 64n;

/** First those that are likely to have the chunks, then those with known chunks, then the newest of the others. */
export async function reusableTemplates(
  task: Task,
  catalog: Catalog,
  known: KnownChunks,
  isLikely: (template: Template) => boolean,
): Promise<Template[]> {
  const cut = await known.names();
  const rank = (template: Template) => (isLikely(template) ? 0 : cut.has(template.sha256) ? 1 : 2);
  const age = ({ identity }: Template) => `${FAR_FUTURE_NS - identity.mtimeNs}`.padStart(20, '0');
  const ranked = await mapInSlices(await templatesOf(task, catalog), (template) => ({
    template,
    rank: rank(template),
  }));
  const sorted = await sortedBy(ranked, (each) => `${each.rank} ${age(each.template)} ${each.template.path}`);
  let read = 0;
  return sorted.filter((each) => each.rank < 2 || read++ < READ_AT_MOST).map(({ template }) => template);
}

/** The templates with known digests. A few whose digests are not known are hashed. */
export async function templatesOf(task: Task, catalog: Catalog): Promise<Template[]> {
  const unknown = [...(await catalog.templates(task.signal))].filter(
    ([, template]) => template === undefined,
  );
  for (const [name] of unknown.slice(0, READ_AT_MOST)) {
    await catalog.stack(parseStackName(name), task.signal).catch((error) => {
      task.checkAborted();
      // A template that cannot be used now is no help, and no obstacle.
      if (!(error instanceof RootfsError)) throw error;
    });
  }
  return catalog.known(task.signal);
}
