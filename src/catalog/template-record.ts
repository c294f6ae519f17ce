// Records which template something in our folder was made from, so that it can be removed when the template is gone.
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Identity } from '../addon/identity.js';
import { asRootfsError, failedWith } from '../system/errors.js';

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
}

export function stateOf({ inode, sizeBytes, mtimeNs }: Identity): FileState {
  return { inode: `${inode}`, sizeBytes, mtimeNs: `${mtimeNs}` };
}

/** Whether data from disk has the form of a file's state. */
export function isFileState({ inode, sizeBytes, mtimeNs }: FileState): boolean {
  return typeof inode === 'string' && Number.isSafeInteger(sizeBytes) && typeof mtimeNs === 'string';
}

/**
 * Whether the template is unchanged. Also true while the folder of templates is missing, since it may not be mounted.
 */
export async function isWanted({ templatePath, template }: TemplateRecord): Promise<boolean> {
  try {
    const now = await stat(templatePath, { bigint: true });
    return (
      `${now.ino}` === template.inode &&
      Number(now.size) === template.sizeBytes &&
      `${now.mtimeNs}` === template.mtimeNs
    );
  } catch (error) {
    // ENOTDIR: a file has the name of the stack's folder.
    if (!failedWith(error, 'ENOENT') && !failedWith(error, 'ENOTDIR'))
      throw asRootfsError(`looking at template ${templatePath}`, error);
  }
  try {
    await stat(dirname(dirname(templatePath)));
    return false;
  } catch {
    return true;
  }
}
