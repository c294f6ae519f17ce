// Unpacking a tar of a root filesystem, with owners, devices, extended attributes and ACLs.
import { mkdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { RootfsError } from '../system/errors.js';
import { programFailed, runInstalled } from '../system/programs.js';

const TAR = { name: 'tar', package: 'tar', notFound: 'PROGRAM_NOT_FOUND' } as const;

/**
 * GNU tar itself keeps members inside the folder: it refuses `..`, and makes symbolic links that lead out of it last.
 */
export async function unpackTar(
  path: string,
  folder: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (process.geteuid?.() !== 0) {
    throw new RootfsError(
      'EPERM',
      `unpacking ${path} needs root, to keep owners and devices: run as root or under fakeroot, or publish an image`,
      { path },
    );
  }
  await mkdir(folder, { mode: 0o755 });
  const args = [
    '--extract',
    '--preserve-permissions',
    '--same-owner',
    '--numeric-owner',
    '--acls',
    '--xattrs',
    // Else only user.*, and file capabilities would be lost.
    '--xattrs-include=*',
    // A colon in the name would mean another host.
    '--force-local',
    '--warning=no-unknown-keyword',
    `--directory=${resolve(folder)}`,
    `--file=${resolve(path)}`,
  ];
  const exit = await runInstalled(TAR, args, signal);
  if (exit.status !== 0) throw programFailed('IMAGE_INVALID', TAR.name, path, exit);
  // What it could not keep, such as an extended attribute that the file system has no place for.
  if (exit.stderr.trim() !== '') {
    process.emitWarning(`tar unpacked ${path}, and said: ${exit.stderr.trim()}`, {
      code: 'MICROVM_ROOTFS_TAR',
    });
  }
}
