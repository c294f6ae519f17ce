// Files that have their mode whatever the umask. A umask may take rights away from the owner as well: this process,
// unless it is root, and the programs that it runs could then not open what it has just made.
import { type FileHandle, open } from 'node:fs/promises';

/** Opens a file, perhaps a new one, that then has at least this mode. */
export async function openOfMode(path: string, flags: string | number, mode = 0o600): Promise<FileHandle> {
  const file = await open(path, flags, mode);
  try {
    const made = (await file.stat()).mode & 0o7777;
    if ((made & mode) !== mode) await file.chmod(made | mode);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Writes a whole file, perhaps a new one, that then has at least this mode. */
export async function writeOfMode(path: string, contents: string | Buffer, mode = 0o600): Promise<void> {
  const file = await openOfMode(path, 'w', mode);
  try {
    await file.writeFile(contents);
  } finally {
    await file.close();
  }
}
