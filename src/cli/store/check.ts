// Checks a store. The systemd unit does this at boot, before it mounts the store.
import { RootfsError } from '../../index.js';
import { requireUnmounted } from './find-store.js';
import { KINDS, kindOf, type StoreKind } from './kinds.js';
import { withMounted } from './mounting.js';
import { requirePrograms, requireRoot, tryProgram } from './store-error.js';

export interface CheckedStore {
  readonly image: string;
  readonly fs: StoreKind;
  readonly clean: true;
}

/**
 * Throws `STORE_DAMAGED`. Changes nothing but what mounting does: the journal of a store that was not unmounted is
 * replayed.
 */
export async function checkStore(image: string, signal: AbortSignal): Promise<CheckedStore> {
  requireRoot('checking a store');
  await requireUnmounted(image);
  const kind = await kindOf(image);
  const { check, repair } = KINDS[kind];
  const [program, ...args] = check;
  await requirePrograms(program, 'mount', 'umount');
  const damaged = (said: string) => {
    const advice = `keep a copy, then try: ${repair} ${image}`;
    return new RootfsError('STORE_DAMAGED', `${image} is damaged: ${said}; ${advice}`, { path: image });
  };
  try {
    // A checker reports a journal that was not replayed as damage.
    await withMounted(image, kind, [], signal, async () => {});
  } catch (error) {
    if (error instanceof RootfsError && error.code === 'STORE_FAILED') throw damaged(error.message);
    throw error;
  }
  const { exit } = await tryProgram(program, [...args, image], signal);
  if (exit.status !== 0) throw damaged((exit.stderr || exit.stdout).trim().split('\n').slice(-3).join('; '));
  return { image, fs: kind, clean: true };
}
