// Sealed images: one immutable copy of each (template digest, size), in few extents, that clones are reflinked from.
//
//   <clonesDir>/.microvm-rootfs/sealed/<sha256>-<size>/rootfs.ext4   0444, flushed, never changed
//                                                      record.json   what it is, and the state of the file when it was sealed
//
// Built in staging and published with its record by one rename, so none is ever wrong or half there. Reflinking costs by the extent,
// growing costs a process, a template may lie on another file system or be replaced at any moment: all of that is paid for once.
import { chmod, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClonesFolder, OpenFolder } from './clones-folder.js';
import { copyImage } from './copy.js';
import { failedWith, isFull, RootfsError } from './errors.js';
import { checkFilesystemClean, type GrowPrograms, growImage } from './grow.js';
import { hashSource } from './hash.js';
import { type Identity, sameState } from './identity.js';
import { type NativeSource, type NativeStagedSlot, native, type OpenedSource, RUNG } from './native.js';
import { readOwnFile } from './own-files.js';
import { isMissing } from './release.js';
import { SingleFlight } from './single-flight.js';
import { type FileState, isWanted, stateOf, type TemplateRecord } from './template-record.js';
import { changed, type Template, unchanged } from './templates.js';

/** A template with no more extents than this is sealed by reflink, which costs no space. */
const FEW_EXTENTS = 4;

// Each holds a descriptor, of which Node lets a process have as many as the system allows at all.
const OPEN_LIMIT = 512;

// After a seal that found no space.
const FULL_REST_MS = 1000;

const RECORD_FILE = 'record.json';
const RECORD_VERSION = 1;
const RECORD_BYTES_LIMIT = 64 * 1024;
const FOLDER_NAME = /^([0-9a-f]{64})-([0-9]+)$/;

export interface SealedImage {
  readonly source: NativeSource;
  readonly identity: Identity;
  readonly extents: number | undefined;
}

interface SealRecord extends TemplateRecord {
  readonly version: number;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly image: FileState;
  readonly extents?: number;
}

export class SealedImages {
  readonly #folder: ClonesFolder;
  readonly #programs: GrowPrograms;
  readonly #path: string;
  readonly #open = new Map<string, SealedImage>();
  readonly #sealing = new SingleFlight<SealedImage>();
  #full: { readonly error: unknown; readonly until: number } | undefined;

  constructor(folder: ClonesFolder, programs: GrowPrograms) {
    this.#folder = folder;
    this.#programs = programs;
    this.#path = `${folder.statePath}/sealed`;
  }

  /** A sealed image that is open already. */
  remembered(sha256: string, sizeBytes: number): SealedImage | undefined {
    const key = keyOf(sha256, sizeBytes);
    const image = this.#open.get(key);
    // The map's order is that of the last use.
    if (image !== undefined && this.#open.size > 1) this.#open.delete(key) && this.#open.set(key, image);
    return image;
  }

  /** The sealed image was changed or removed behind our back: the next clone finds out what is true. */
  forget(sha256: string, sizeBytes: number): void {
    const key = keyOf(sha256, sizeBytes);
    const image = this.#open.get(key);
    if (image === undefined) return;
    this.#open.delete(key);
    native().dispose(image.source);
  }

  /** The sealed image of a template whose digest is known, at one size: opened, or made. */
  async ensure(template: Template, sizeBytes: number, signal: AbortSignal | undefined): Promise<SealedImage> {
    const { sha256, path } = template;
    const key = keyOf(sha256, sizeBytes);
    const what = `sealing ${path} at ${sizeBytes} bytes`;
    return this.#sealing.join(key, what, signal, (shared) =>
      this.#folder.use(async (folder) => {
        const there = this.#open.get(key) ?? (await this.#openSealed(folder, key));
        return there ?? this.#whileSpace(() => this.#make(what, folder, template, sizeBytes, shared));
      }),
    );
  }

  /** Seals a template whose digest is not known, and gives the digest: of the bytes in the sealed image. */
  digestBySealing = (path: string, opened: OpenedSource, signal: AbortSignal): Promise<string> =>
    this.#folder.use((folder) =>
      unchanged(path, opened, () =>
        this.#whileSpace(() => this.#seal(`sealing ${path}`, folder, path, opened, undefined, signal)),
      ),
    );

  /** On a full disk not every clone should copy until it is full once more, only to be made from its template then. */
  async #whileSpace<T>(work: () => Promise<T>): Promise<T> {
    if (this.#full !== undefined && performance.now() < this.#full.until) throw this.#full.error;
    try {
      return await work();
    } catch (error) {
      if (isFull(error)) this.#full = { error, until: performance.now() + FULL_REST_MS };
      throw error;
    }
  }

  async #make(
    what: string,
    folder: OpenFolder,
    template: Template,
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<SealedImage> {
    const { path, sha256 } = template;
    if (sizeBytes !== template.identity.sizeBytes)
      return this.#grow(what, folder, template, sizeBytes, signal);
    const opened = await native().openSource(path);
    try {
      // Another file may have the path by now: its bytes must not be sealed under this digest.
      if (!sameState(opened.info.identity, template.identity))
        throw changed(path, 'was replaced before it was sealed');
      await unchanged(path, opened, () => this.#seal(what, folder, path, opened, sha256, signal));
    } finally {
      native().dispose(opened.source);
    }
    return this.#required(folder, keyOf(sha256, sizeBytes));
  }

  async #seal(
    what: string,
    folder: OpenFolder,
    path: string,
    { source, info }: OpenedSource,
    known: string | undefined,
    signal: AbortSignal,
  ): Promise<string> {
    const { identity } = info;
    const scattered = ((await extentCount(source)) ?? 0) > FEW_EXTENTS;
    const outcome = await native().stageReplacement(folder.store, source, {
      slot: '',
      companions: [],
      expected: identity,
      rungs: scattered ? RUNG.copy : RUNG.reflink | RUNG.copy,
      packed: true,
      mode: 0o444,
      durable: true,
    });
    try {
      // The digest is that of the bytes in the sealed image, whatever happens to the template.
      const sha256 =
        outcome.status === 'copy-needed'
          ? await copyImage(what, outcome.staged, signal)
          : (known ?? (await hashStaged(what, outcome.imagePath, identity.sizeBytes, signal)));
      if (sha256 === undefined || (known !== undefined && sha256 !== known))
        throw changed(path, 'changed while it was sealed');
      const record = {
        templatePath: path,
        template: stateOf(identity),
        sha256,
        sizeBytes: identity.sizeBytes,
      };
      const published = await this.#publish(outcome.staged, outcome.imagePath, record);
      if (published === 'source-changed') throw changed(path, 'changed while it was sealed');
      return sha256;
    } finally {
      await native().discardSlot(outcome.staged);
    }
  }

  async #grow(
    what: string,
    folder: OpenFolder,
    template: Template,
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<SealedImage> {
    const base = await this.ensure(template, template.identity.sizeBytes, signal);
    const grown = await native().stageReplacement(folder.store, base.source, {
      slot: '',
      companions: [],
      expected: base.identity,
      rungs: RUNG.reflink | RUNG.copy,
      mode: 0o600,
      durable: true,
    });
    let staged = grown.staged;
    try {
      let { imagePath } = grown;
      if (grown.status === 'copy-needed') await copyImage(what, staged, signal);
      await growImage(imagePath, sizeBytes, this.#programs, signal);
      await checkFilesystemClean(imagePath, this.#programs.e2fsckBin, signal);
      const packed = await repack(what, folder, imagePath, signal);
      if (packed !== undefined) {
        await native().discardSlot(staged);
        ({ staged, imagePath } = packed);
      }
      await chmod(imagePath, 0o444);
      const { path, identity, sha256 } = template;
      await this.#publish(staged, imagePath, {
        templatePath: path,
        template: stateOf(identity),
        sha256,
        sizeBytes,
      });
    } finally {
      await native().discardSlot(staged);
    }
    return this.#required(folder, keyOf(template.sha256, sizeBytes));
  }

  async #publish(
    staged: NativeStagedSlot,
    imagePath: string,
    record: Pick<SealRecord, 'templatePath' | 'template' | 'sha256' | 'sizeBytes'>,
  ): Promise<'created' | 'exists' | 'source-changed'> {
    const { source, info } = await native().openSource(imagePath);
    try {
      const image = { ...stateOf(info.identity), ctimeNs: `${info.identity.ctimeNs}` };
      const extents = await extentCount(source);
      const whole: SealRecord = {
        version: RECORD_VERSION,
        ...record,
        image,
        ...(extents === undefined ? {} : { extents }),
      };
      const key = keyOf(record.sha256, record.sizeBytes);
      return await native().publishSlot(staged, 'sealed', key, record.sizeBytes, [
        RECORD_FILE,
        `${JSON.stringify(whole)}\n`,
      ]);
    } finally {
      native().dispose(source);
    }
  }

  async #required(folder: OpenFolder, key: string): Promise<SealedImage> {
    const image = await this.#openSealed(folder, key);
    if (image !== undefined) return image;
    throw new RootfsError('ESTALE', `sealed image ${key} was removed while it was made: try again`, {
      path: join(this.#path, key),
    });
  }

  /** Opens a published image; one that is not as it was sealed is thrown away. */
  async #openSealed(folder: OpenFolder, key: string): Promise<SealedImage | undefined> {
    // Another process may publish it at any moment, image and record at once: so what was not there is not thrown away, and the record is
    // read after the image was opened.
    if (await isMissing(join(this.#path, key))) return undefined;
    let opened: OpenedSource | undefined;
    try {
      opened = await native().openSource(join(this.#path, key, 'rootfs.ext4'));
    } catch (error) {
      if (!failedWith(error, 'ENOENT') && !failedWith(error, 'EINVAL')) throw error;
    }
    const record = await readRecord(join(this.#path, key));
    if (record !== undefined && opened !== undefined && isSealed(record, key, opened.info.identity)) {
      const image = { source: opened.source, identity: opened.info.identity, extents: record.extents };
      this.#keep(key, image);
      return image;
    }
    if (opened !== undefined) native().dispose(opened.source);
    await this.#discard(folder, key);
    return undefined;
  }

  async #discard(folder: OpenFolder, key: string): Promise<void> {
    await native().discardFolder(folder.store, 'sealed', key);
    this.#folder.sweepInBackground();
  }

  #keep(key: string, image: SealedImage): void {
    this.#open.set(key, image);
    for (const [oldest, { source }] of this.#open) {
      if (this.#open.size <= OPEN_LIMIT) break;
      this.#open.delete(oldest);
      native().dispose(source);
    }
  }

  /** Throws away the images of templates that are no longer there, or not as they were. Resolves to their number. */
  async collect(): Promise<number> {
    return this.#folder.use(async (folder) => {
      let removed = 0;
      for (const key of await sealedKeys(this.#path)) {
        const record = await readRecord(join(this.#path, key));
        if (record !== undefined && (await isWanted(record))) continue;
        await this.#discard(folder, key);
        const image = this.#open.get(key);
        this.#open.delete(key);
        if (image !== undefined) native().dispose(image.source);
        removed++;
      }
      return removed;
    });
  }

  close(): void {
    for (const { source } of this.#open.values()) native().dispose(source);
    this.#open.clear();
  }
}

function keyOf(sha256: string, sizeBytes: number): string {
  return `${sha256}-${sizeBytes}`;
}

function isSealed(record: SealRecord, key: string, identity: Identity): boolean {
  const { image } = record;
  return (
    keyOf(record.sha256, record.sizeBytes) === key &&
    image.inode === `${identity.inode}` &&
    image.sizeBytes === identity.sizeBytes &&
    image.mtimeNs === `${identity.mtimeNs}` &&
    image.ctimeNs === `${identity.ctimeNs}` &&
    identity.links === 1
  );
}

async function readRecord(path: string): Promise<SealRecord | undefined> {
  try {
    const text = await readOwnFile(join(path, RECORD_FILE), RECORD_BYTES_LIMIT);
    const record = JSON.parse(text ?? '') as SealRecord;
    return record.version === RECORD_VERSION && typeof record.image === 'object' ? record : undefined;
  } catch {
    return undefined; // missing or garbage: not trusted
  }
}

async function sealedKeys(path: string): Promise<string[]> {
  return (await readdir(path)).filter((name) => FOLDER_NAME.test(name));
}

async function extentCount(source: NativeSource): Promise<number | undefined> {
  try {
    return await native().extentCount(source);
  } catch (error) {
    if (failedWith(error, 'ENOTSUP') || failedWith(error, 'ENOTTY')) return undefined;
    throw error;
  }
}

async function hashStaged(
  what: string,
  path: string,
  sizeBytes: number,
  signal: AbortSignal,
): Promise<string> {
  const { source } = await native().openSource(path);
  try {
    return await hashSource(what, source, sizeBytes, signal);
  } finally {
    native().dispose(source);
  }
}

/** A copy in fewer extents of an image that growing has scattered; undefined if there is nothing to win. */
async function repack(
  what: string,
  folder: OpenFolder,
  path: string,
  signal: AbortSignal,
): Promise<{ staged: NativeStagedSlot; imagePath: string } | undefined> {
  const { source, info } = await native().openSource(path);
  try {
    const extents = await extentCount(source);
    if (extents === undefined || extents <= FEW_EXTENTS) return undefined;
    const { staged, imagePath } = await native().stageReplacement(folder.store, source, {
      slot: '',
      companions: [],
      expected: info.identity,
      rungs: RUNG.copy,
      packed: true,
      durable: true,
    });
    let kept = false;
    try {
      await copyImage(what, staged, signal);
      const packed = await native().openSource(imagePath);
      kept = ((await extentCount(packed.source)) ?? extents) < extents;
      native().dispose(packed.source);
      return kept ? { staged, imagePath } : undefined;
    } finally {
      if (!kept) await native().discardSlot(staged);
    }
  } finally {
    native().dispose(source);
  }
}
