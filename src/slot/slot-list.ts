// Lists slots in batches, since a folder may hold a hundred thousand of them.

import type { StacksByDigest } from '../catalog/stacks-by-digest.js';
import type { ManagedFolder } from '../folder/managed-folder.js';
import { asRootfsError, isSystemError } from '../system/errors.js';
import { Failures } from '../system/failures.js';
import { isMissing } from '../system/is-missing.js';
import { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import type { TemplateBytes } from './slot-image.js';
import { type KnownTemplates, type SlotInfo, type SlotTemplate, slotInfo, templateOf } from './slot-info.js';
import { slotNames } from './slot-names.js';
import { surveySlots } from './slot-survey.js';
import { parseStamp } from './stamps.js';

// Names per trip: a few milliseconds of work.
const BATCH = 256;

// One batch is converted here while others are read on other threads.
const BATCHES_AT_ONCE = 3;

// All listings together read two at a time: Node has four threads.
const surveys = new Turns(2);

/**
 * Yields slots in no particular order. A slot that is made or released meanwhile may or may not appear. What cannot be
 * read hides no other slot: it is thrown in the end.
 */
export async function* listSlots(
  folder: ManagedFolder,
  stacks: StacksByDigest,
  signal: AbortSignal | undefined,
  templateBytes: TemplateBytes = async () => undefined,
): AsyncGenerator<SlotInfo, void, undefined> {
  const task = new Task(`listing slots in ${folder.path}`, signal);
  const templates = { stacks, templateBytes, found: new Map<string, SlotTemplate>() };
  const failures = new Failures(task);
  const reading: Promise<SlotInfo[]>[] = [];
  const read = (names: readonly string[]) => {
    const infos = readBatch(task, folder, names, templates, failures);
    // If the listing ends early, a later failure must not become an unhandled rejection.
    infos.catch(() => {});
    reading.push(infos);
  };
  try {
    // Listing never creates the folder.
    if (await isMissing(folder.path)) return;
    let names: string[] = [];
    for (const name of await slotNames(folder.path)) {
      if (names.push(name) < BATCH) continue;
      task.checkAborted();
      read(names);
      names = [];
      if (reading.length >= BATCHES_AT_ONCE) yield* await (reading.shift() as Promise<SlotInfo[]>);
    }
    read(names);
    for (const infos of reading) {
      task.checkAborted();
      yield* await infos;
    }
    failures.throwIfAny();
  } catch (error) {
    throw asRootfsError(task.what, error);
  }
}

/** Looked up once for each digest and stack: a promise for each slot would double the time. */
interface ListedTemplates extends KnownTemplates {
  readonly found: Map<string, SlotTemplate>;
}

async function readBatch(
  task: Task,
  folder: ManagedFolder,
  names: readonly string[],
  templates: ListedTemplates,
  failures: Failures,
): Promise<SlotInfo[]> {
  if (names.length === 0) return [];
  const states = await folder.use(
    ({ handle }) => surveys.run(task, () => surveySlots(handle, names)),
    'no-staging',
  );
  const infos: SlotInfo[] = [];
  for (const [i, state] of states.entries()) {
    if (isSystemError(state)) {
      failures.add(`${folder.path}/${names[i]}`, state);
      continue;
    }
    const sha256 = parseStamp(state.stamp);
    const key = `${sha256} ${state.stack ?? ''}`;
    const template = templates.found.get(key) ?? (await templateOf(state, templates));
    templates.found.set(key, template);
    const info = slotInfo(folder.path, names[i] as string, state, template);
    if (info !== undefined) infos.push(info);
  }
  return infos;
}
