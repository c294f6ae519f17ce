// Which template something in our folder was made of, to tell when nobody needs it any more, also after a restart.
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Identity } from '../addon/identity.js';
import { asRootfsError, failedWith } from '../system/errors.js';

/** Without the device: its number can change from boot to boot. */
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

/** Whether what was read from disk is the state of a file. */
export function isFileState({ inode, sizeBytes, mtimeNs }: FileState): boolean {
  return typeof inode === 'string' && Number.isSafeInteger(sizeBytes) && typeof mtimeNs === 'string';
}

/** Whether the template is as it was. While the folder of templates is away (not mounted?) the answer is yes. */
export async function isWanted({ templatePath, template }: TemplateRecord): Promise<boolean> {
  try {
    const now = await stat(templatePath, { bigint: true });
    return (
      `${now.ino}` === template.inode &&
      Number(now.size) === template.sizeBytes &&
      `${now.mtimeNs}` === template.mtimeNs
    );
  } catch (error) {
    // ENOTDIR: a file lies where its stack's folder was.
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
