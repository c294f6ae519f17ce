// A qcow2 image as a raw one, by qemu-img.
import { resolve } from 'node:path';
import { readBytes } from '../image/read-bytes.js';
import { RootfsError } from '../system/errors.js';
import { programFailed, runInstalled } from '../system/programs.js';

const QEMU_IMG = { name: 'qemu-img', package: 'qemu-utils', notFound: 'PROGRAM_NOT_FOUND' } as const;

// docs/interop/qcow2.rst of QEMU.
const HEADER_BYTES = 104;
const INCOMPAT_EXTERNAL_DATA = 4n;

/** Rejects with `IMAGE_INVALID` unless all that the image holds is in the one file. */
export async function convertQcow2(
  path: string,
  dest: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await requireSelfContained(path);
  // A path without a slash at its front could be read as a protocol: `nbd:…`.
  const args = ['convert', '-q', '-f', 'qcow2', '-O', 'raw', resolve(path), resolve(dest)];
  const exit = await runInstalled(QEMU_IMG, args, signal);
  if (exit.status !== 0) throw programFailed('IMAGE_INVALID', QEMU_IMG.name, path, exit);
}

/** An image from a stranger that names another file of this host would publish what is in that file. */
async function requireSelfContained(path: string): Promise<void> {
  const header = await readBytes(path, 0, HEADER_BYTES);
  const refuse = (why: string) =>
    new RootfsError('IMAGE_INVALID', `${path} ${why}`, {
      path,
    });
  if (header.length < 72) throw refuse('is no qcow2 image: it ends within its header');
  const version = header.readUInt32BE(4);
  if (header.readBigUInt64BE(8) !== 0n)
    throw refuse('has a backing file: flatten it with qemu-img convert -O qcow2');
  if (header.readUInt32BE(32) !== 0) throw refuse('is encrypted: decrypt it first');
  if (version < 3) return;
  if (header.length < HEADER_BYTES || (header.readBigUInt64BE(72) & INCOMPAT_EXTERNAL_DATA) !== 0n)
    throw refuse('keeps its data in another file: flatten it with qemu-img convert -O qcow2');
}
