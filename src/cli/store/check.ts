// Checks a store. The systemd unit does this at boot, before it mounts the store.
import { RootfsError } from '../../index.js';
import { isFaultOfThisMachine } from '../../programs/program-failed.js';
import { requireUnmounted } from './find-store.js';
import { KINDS, kindOf, type StoreKind } from './kinds.js';
import { whileImageLocked } from './lock.js';
import { withMounted } from './mounting.js';
import { requirePrograms, requireRoot, storeProgramFailed, tryProgram } from './store-error.js';

interface CheckedStore {
  readonly image: string;
  readonly fs: StoreKind;
  readonly clean: true;
}

// What mount(8) says of EUCLEAN and EBADMSG, which a file system returns for damage only.
const DAMAGE = /structure needs cleaning|bad message/i;
// What it says of EINVAL and EIO, which have other reasons as well: the checker knows.
const PERHAPS_DAMAGE = /bad superblock|can't read superblock/i;

/**
 * Throws `STORE_DAMAGED`. Changes nothing but what mounting does: the journal of a store that was not unmounted is
 * replayed.
 */
export async function checkStore(image: string, signal: AbortSignal): Promise<CheckedStore> {
  requireRoot('checking a store');
  await requirePrograms('flock');
  // Mounted by another command meanwhile, it would have two loop devices, and both would write.
  return whileImageLocked(image, signal, () => checkUnlocked(image, signal));
}

/** The caller has locked the image. */
async function checkUnlocked(image: string, signal: AbortSignal): Promise<CheckedStore> {
  await requireUnmounted(image);
  const kind = await kindOf(image);
  const { check, repair } = KINDS[kind];
  const [program, ...args] = check;
  await requirePrograms(program, 'mount', 'umount');
  const damaged = (said: string) => {
    const advice = `keep a copy, then try: ${repair} ${image}`;
    return new RootfsError('STORE_DAMAGED', `${image} is damaged: ${said}; ${advice}`, { path: image });
  };
  // A checker reports a journal that was not replayed as damage.
  const notMounted = await failureOf(withMounted(image, kind, [], signal, async () => {}));
  const isFailure = notMounted instanceof RootfsError && notMounted.code === 'STORE_FAILED';
  if (isFailure && DAMAGE.test(notMounted.message)) throw damaged(notMounted.message);
  if (notMounted !== undefined && !(isFailure && PERHAPS_DAMAGE.test(notMounted.message))) throw notMounted;
  const exit = await tryProgram(program, [...args, image], signal);
  if (exit.status !== 0) {
    if (isFaultOfThisMachine(exit)) throw storeProgramFailed(program, exit, image);
    // No checker can judge a file system that is in use.
    await requireUnmounted(image);
    throw damaged((exit.stderr || exit.stdout).trim().split('\n').slice(-3).join('; '));
  }
  if (notMounted !== undefined) throw notMounted;
  return { image, fs: kind, clean: true };
}

function failureOf(work: Promise<void>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}
