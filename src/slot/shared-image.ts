// Whether a slot's image is somebody else's file as well. A link count alone says nothing of that: a jail, a backup or
// an operator may have given the image another name.

import { type Identity, sameFile } from '../addon/identity.js';
import { native, type SlotState } from '../addon/native.js';
import { namesIn } from '../folder/names-in.js';
import type { Folders } from '../system/folders-overlap.js';
import { SingleFlight } from '../system/single-flight.js';
import type { Task } from '../system/task.js';
import { Turns } from '../system/turns.js';
import { hasOtherLinks } from './slot-state.js';

/** `template`: a guest that writes to the image changes a template. `slot`: it changes another VM's disk, or may. */
export type Sharer = 'nobody' | 'template' | 'slot';

// Names per trip: a few milliseconds of work.
const BATCH = 1024;

// One thread for the scans of all registries.
const scanning = new Turns(1);

/** Undefined if only a look at other files shows it. */
export function knownSharer(state: SlotState, template: Identity | undefined): Sharer | undefined {
  if (state.image === undefined) return 'nobody';
  if (template !== undefined && sameFile(state.image.identity, template)) return 'template';
  return hasOtherLinks(state) ? undefined : 'nobody';
}

/** Finds who else has an image. All who ask at the same time share one look at every template and every slot. */
export class Sharers {
  readonly #folders: Folders;
  readonly #scans = new SingleFlight<Scan>();
  #begun = 0;

  constructor(folders: Folders) {
    this.#folders = folders;
  }

  async find(task: Task, slot: string, state: SlotState, template: Identity | undefined): Promise<Sharer> {
    const known = knownSharer(state, template);
    if (known !== undefined || state.image === undefined) return known ?? 'nobody';
    const sharer = sharerIn(await this.#scan(task), slot, state.image.identity);
    // Its template may have been moved to another folder, and the other slots may lie in other clones folders.
    return sharer === 'nobody' && state.linked ? 'slot' : sharer;
  }

  /** Joins only scans that have not started: a running one may already have missed a slot. */
  #scan(task: Task): Promise<Scan> {
    return this.#scans.join(`${this.#begun}`, task, (joined) =>
      scanning.run(joined, () => {
        this.#begun++;
        return scan(joined, this.#folders);
      }),
    );
  }
}

/** The images of all templates and slots, by {@link keyOf}. */
interface Scan {
  readonly templates: ReadonlyMap<string, string>;
  readonly slots: ReadonlyMap<string, string>;
}

// In place of the name of the only folder that has an image.
const SEVERAL = '';

function sharerIn({ templates, slots }: Scan, slot: string, image: Identity): Sharer {
  const key = keyOf(image);
  if (templates.has(key)) return 'template';
  return (slots.get(key) ?? slot) === slot ? 'nobody' : 'slot';
}

async function scan(task: Task, { templateDir, clonesDir }: Folders): Promise<Scan> {
  // A template may be a symbolic link.
  const templates = await imagesIn(task, templateDir, true);
  return { templates, slots: await imagesIn(task, clonesDir, false) };
}

async function imagesIn(task: Task, folder: string, followLinks: boolean): Promise<Map<string, string>> {
  const images = new Map<string, string>();
  const names = await namesIn(folder, (name) => !name.startsWith('.'));
  for (let from = 0; from < names.length; from += BATCH) {
    task.checkAborted();
    const batch = names.slice(from, from + BATCH);
    const files = await native().identifyImages(folder, batch, followLinks);
    for (const [i, name] of batch.entries()) {
      const key = keyOf({ device: files[2 * i] as bigint, inode: files[2 * i + 1] as bigint });
      images.set(key, images.has(key) ? SEVERAL : name);
    }
  }
  return images;
}

function keyOf({ device, inode }: Pick<Identity, 'device' | 'inode'>): string {
  return `${device}:${inode}`;
}
