// Grows a store while its clones are in use: the file, the loop device, then the file system. Each step can be
// repeated.
import { RootfsError } from '../../index.js';
import { formatSize } from '../sizes.js';
import { capacityOf, mountOfImage } from './find-store.js';
import { extendImageFile } from './image-file.js';
import { KINDS } from './kinds.js';
import { requireNamed, whileImageLocked } from './lock.js';
import { requirePrograms, requireRoot, runProgram } from './store-error.js';

export async function growStore(image: string, toBytes: number, signal: AbortSignal): Promise<void> {
  requireRoot('growing a store');
  await requirePrograms('flock');
  await whileImageLocked(image, signal, async (file) => {
    const { size: sizeBytes, blocks } = await file.stat();
    const mounted = await mountOfImage(image);
    if (mounted === undefined)
      throw new RootfsError('STORE_NOT_MOUNTED', `${image} is not mounted: store mount it first`, {
        path: image,
      });
    if (toBytes < sizeBytes) {
      const words = `${image} has ${formatSize(sizeBytes)}: making it ${formatSize(toBytes)} would lose data`;
      throw new RootfsError('SHRINK_REFUSED', words, { path: image });
    }
    const { device, kind, mountPoint } = mounted;
    const [program, ...args] = KINDS[kind].grow;
    await requirePrograms(program, 'losetup', 'fallocate');
    if (toBytes > sizeBytes) {
      await requireNamed(image, file);
      try {
        // A store without reserved space stays so.
        await extendImageFile(image, toBytes, blocks * 512 < sizeBytes, signal);
      } catch (error) {
        // A program that ignores the lock may have grown the file system meanwhile.
        await file.truncate(Math.max(sizeBytes, await capacityOf(device)));
        throw error;
      }
    }
    await runProgram('losetup', ['--set-capacity', device], undefined, image);
    await runProgram(program, [...args, mountPoint], undefined, image);
  });
}
