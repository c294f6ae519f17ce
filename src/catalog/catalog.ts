import { basename, dirname } from 'node:path';
import { rawNamesIn } from '../folder/names-in.js';
import { otherSpelling } from '../folder/spelling.js';
import { allOrNone } from '../system/all-or-none.js';
import { show } from '../system/arguments.js';
import { dropOldest } from '../system/drop-oldest.js';
import { asRootfsError, failedWith, hasCode, isSystemError, RootfsError } from '../system/errors.js';
import { isMissing } from '../system/is-missing.js';
import { mapInSlices } from '../system/map-in-slices.js';
import { sortedNames } from '../system/sorted-names.js';
import { type ImageConfig, readImageConfig } from './image-config.js';
import { isStackName, parseStackName, type StackName } from './stack-name.js';
import type { Template } from './template.js';
import type { Templates } from './templates.js';

/** A template's file name in its stack's folder. */
export const TEMPLATE_ROOTFS_FILE = 'rootfs.ext4';

/** In the root folder of each ext4 file system, and root's alone. */
export const LOST_AND_FOUND = 'lost+found';

/** A template in the catalog. */
export interface StackInfo {
  readonly name: string;
  readonly templatePath: string;
  readonly sizeBytes: number;
  /** 64 lower-case hex digits. */
  readonly sha256: string;
  /**
   * Only for a stack that was made of a container image, or of a clone of such a stack. `stack()` and publishing report
   * it, `stacks()` does not.
   */
  readonly image?: ImageConfig;
}

const LOCATED_LIMIT = 4096;

// Enough to keep the disk busy. Each holds a descriptor.
const LOOKS_AT_ONCE = 16;

/** Failures that say nothing of one stack: all would fail, in whatever order. */
const OF_THIS_MACHINE = ['EMFILE', 'ENFILE', 'ENOMEM'];

export class Catalog {
  readonly #templateDir: string;
  readonly #templates: Templates;
  readonly #located = new Map<StackName, { readonly name: StackName; readonly templatePath: string }>();

  /** Stacks that a warning was given of. */
  readonly #unreadable = new Set<StackName>();

  constructor(templateDir: string, templates: Templates) {
    this.#templateDir = templateDir.replace(/(?<=.)\/+$/, '');
    this.#templates = templates;
  }

  /** A checked name and the path of its template. Cached, because each clone asks for it. */
  located(stack: unknown): { readonly name: StackName; readonly templatePath: string } {
    const known = this.#located.get(stack as StackName);
    if (known !== undefined) return known;
    const name = parseStackName(stack);
    const located = { name, templatePath: this.templatePath(name) };
    this.#located.set(name, located);
    dropOldest(this.#located, LOCATED_LIMIT);
    return located;
  }

  templatePath(stack: StackName): string {
    return `${this.#templateDir}/${stack}/${TEMPLATE_ROOTFS_FILE}`;
  }

  async stack(stack: StackName, signal: AbortSignal | undefined): Promise<StackInfo | undefined> {
    await refuseOtherSpelling(this.templatePath(stack));
    const template = await this.#templates.look(this.templatePath(stack), signal);
    if (template === undefined) return undefined;
    const image = await readImageConfig(template.path, template.sha256);
    return { ...stackInfo(stack, template), ...(image === undefined ? {} : { image }) };
  }

  /** How to start the image with this digest, if it is the stack's. Reads no template. */
  async imageConfig(sha256: string, stack: string | undefined): Promise<ImageConfig | undefined> {
    if (stack === undefined || !isStackName(stack)) return undefined;
    return readImageConfig(this.templatePath(stack), sha256);
  }

  /** All templates whose digest is known for the file as it is. */
  async known(signal: AbortSignal | undefined): Promise<Template[]> {
    const known = await this.#knownAmong(await this.#names(), signal);
    return known.filter((template) => template !== undefined);
  }

  /** The template of each folder that has an image: those whose digest is known, undefined for the others. */
  async templates(signal: AbortSignal | undefined): Promise<Map<StackName, Template | undefined>> {
    const names = await this.#names();
    const known = await this.#knownAmong(names, signal);
    const templates = new Map<StackName, Template | undefined>();
    await mapInSlices(names, (name, i) => templates.set(name, known[i]));
    return templates;
  }

  /** Null if there is no such stack, undefined if its digest is not known. Reads no template. */
  async digestNow(stack: string): Promise<string | null | undefined> {
    // What a slot says of its stack may be anything.
    if (!isStackName(stack)) return undefined;
    const path = this.templatePath(parseStackName(stack));
    const [known] = await this.#templates.known([path], undefined);
    if (known !== undefined) return known.sha256;
    return (await isMissing(path)) ? null : undefined;
  }

  /** The size of a stack's template, if its digest is known and is this one. Reads no template. */
  async knownBytes(sha256: string, stack: string | undefined): Promise<number | undefined> {
    if (stack === undefined || !isStackName(stack)) return undefined;
    const path = this.templatePath(stack);
    const [known] = await this.#templates.known([path], undefined);
    return known?.sha256 === sha256 ? known.identity.sizeBytes : undefined;
  }

  async stacks(signal: AbortSignal | undefined): Promise<StackInfo[]> {
    const names = await this.#names();
    const known = await this.#knownAmong(names, signal);
    const found: (StackInfo | undefined)[] = await mapInSlices(names, (name, i) => {
      const template = known[i];
      return template === undefined ? undefined : stackInfo(name, template);
    });
    await this.#lookAtRest(names, found, signal);
    return found.filter((info) => info !== undefined);
  }

  async #knownAmong(
    names: readonly StackName[],
    signal: AbortSignal | undefined,
  ): Promise<(Template | undefined)[]> {
    const paths = await mapInSlices(names, (name) => this.templatePath(name));
    return this.#templates.known(paths, signal);
  }

  /** Those that have to be hashed, or are none. After the first failure nothing more is read. */
  async #lookAtRest(
    names: readonly StackName[],
    found: (StackInfo | undefined)[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const rest = found.flatMap((info, i) => (info === undefined ? [i] : []));
    await allOrNone({
      items: rest,
      atOnce: LOOKS_AT_ONCE,
      signal,
      work: async (i, either) => {
        found[i] = await this.#listed(names[i] as StackName, either);
      },
    });
  }

  /**
   * A folder whose image is not a regular file is not a stack. One that cannot be read, or is being written to, is left
   * out, with a warning.
   */
  async #listed(name: StackName, signal: AbortSignal | undefined): Promise<StackInfo | undefined> {
    try {
      const template = await this.#templates.look(this.templatePath(name), signal);
      return template === undefined ? undefined : stackInfo(name, template);
    } catch (error) {
      if (hasCode(error, 'TEMPLATE_INVALID')) return undefined;
      const isOfThis = isSystemError(error) && !failedWith(error, ...OF_THIS_MACHINE);
      if (!isOfThis && !hasCode(error, 'TEMPLATE_CHANGED')) throw error;
      this.#warnOfUnreadable(name, error as RootfsError);
      return undefined;
    }
  }

  #warnOfUnreadable(name: StackName, error: RootfsError): void {
    if (name === LOST_AND_FOUND || this.#unreadable.has(name)) return;
    this.#unreadable.add(name);
    process.emitWarning(`stack ${name} is left out: ${error.message}`, {
      code: 'MICROVM_ROOTFS_STACK_UNREADABLE',
    });
  }

  /** Names of all folders, sorted by their UTF-8 bytes; names that are not UTF-8 cannot be asked for. */
  async #names(): Promise<StackName[]> {
    const raw = await rawNamesIn(this.#templateDir).catch((error) => {
      throw asRootfsError(`listing templates in ${this.#templateDir}`, error);
    });
    const names = await mapInSlices(await sortedNames(raw), nameOf);
    return names.filter((name) => name !== undefined);
  }
}

/** Undefined for bytes that no stack can be asked for by. */
function nameOf(raw: string): StackName | undefined {
  if (raw.startsWith('.')) return undefined;
  const bytes = Buffer.from(raw, 'latin1');
  const name = bytes.toString('utf8');
  return Buffer.from(name, 'utf8').equals(bytes) ? (name as StackName) : undefined;
}

/** Rejects with `STACK_NAME_COLLISION` if the stack's name is that of another on this disk. */
export async function refuseOtherSpelling(templatePath: string): Promise<void> {
  const path = dirname(templatePath);
  const spelled = await otherSpelling(dirname(path), basename(path));
  if (spelled === undefined) return;
  throw new RootfsError(
    'STACK_NAME_COLLISION',
    `${path} is the stack ${show(spelled)}: this file system treats both names as the same; use that spelling, ` +
      'or another name',
    { path },
  );
}

export function stackNotFoundError(stack: string, templatePath: string): RootfsError {
  return new RootfsError(
    'STACK_NOT_FOUND',
    `there is no stack "${stack}": ${templatePath} does not exist; stacks() lists what is there`,
    { path: templatePath },
  );
}

function stackInfo(name: StackName, template: Template): StackInfo {
  return {
    name,
    templatePath: template.path,
    sizeBytes: template.identity.sizeBytes,
    sha256: template.sha256,
  };
}
