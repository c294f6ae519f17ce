// Records which template something in our folder was made from, so that it can be removed when the template is gone.
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Identity } from '../addon/identity.js';
import { namesIn } from '../folder/names-in.js';
import { asRootfsError, isGone } from '../system/errors.js';

/** Without the device number, which can change between boots. */
export interface FileState {
  readonly inode: string;
  readonly sizeBytes: number;
  readonly mtimeNs: string;
  readonly ctimeNs?: string;
}

export interface TemplateRecord {
  readonly templatePath: string;
  readonly template: FileState;
  /** The inode of the folder of templates. Versions before 0.1.0 do not record it. */
  readonly catalogInode?: string;
}

export async function recordTemplate(templatePath: string, template: Identity): Promise<TemplateRecord> {
  const catalog = await stat(catalogOf(templatePath), { bigint: true }).catch(() => undefined);
  return {
    templatePath,
    template: stateOf(template),
    ...(catalog === undefined ? {} : { catalogInode: `${catalog.ino}` }),
  };
}

function catalogOf(templatePath: string): string {
  return dirname(dirname(templatePath));
}

export function stateOf({ inode, sizeBytes, mtimeNs }: Identity): FileState {
  return { inode: `${inode}`, sizeBytes, mtimeNs: `${mtimeNs}` };
}

/** Whether data from disk has the form of a file's state. */
export function isFileState({ inode, sizeBytes, mtimeNs }: FileState): boolean {
  return typeof inode === 'string' && Number.isSafeInteger(sizeBytes) && typeof mtimeNs === 'string';
}

/** Whether what was made of the template is kept: it is unchanged, or {@link isCatalogAway}. */
export async function isTemplateKept({
  templatePath,
  template,
  catalogInode,
}: TemplateRecord): Promise<boolean> {
  try {
    const now = await stat(templatePath, { bigint: true });
    return (
      `${now.ino}` === template.inode &&
      Number(now.size) === template.sizeBytes &&
      `${now.mtimeNs}` === template.mtimeNs
    );
  } catch (error) {
    if (!isGone(error)) throw asRootfsError(`looking at template ${templatePath}`, error);
  }
  return isCatalogAway(templatePath, catalogInode);
}

/**
 * Whether the folder of templates may not be mounted: it is missing; or it holds no stack, and is another folder than
 * it was, or it is not known which one it was. For what is left of a disk that was unmounted is its empty mount point.
 */
export async function isCatalogAway(
  templatePath: string,
  catalogInode: string | undefined,
): Promise<boolean> {
  const catalog = catalogOf(templatePath);
  try {
    if (`${(await stat(catalog, { bigint: true })).ino}` === catalogInode) return false;
    return (await namesIn(catalog, (name) => !name.startsWith('.'))).length === 0;
  } catch {
    return true;
  }
}
