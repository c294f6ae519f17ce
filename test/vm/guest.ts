// What the VMs of these tests run: a guest made once for this machine, and a host whose catalog has it.
import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { beforeAll, beforeEach } from 'vitest';
import type { Filesystem } from '../fixtures/filesystems.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { lacks } from '../fixtures/tools.js';

export const STACK = 'guest';
export const TEMPLATE_BYTES = 64 * MiB;
/** Tests that boot one VM or two. Emulated, on a busy machine; how long one VM may take says `vm.ts`. */
export const TIMEOUT = { timeout: 600_000 } as const;

const CANNOT = 77;

export interface Guest {
  readonly kernel: string;
  readonly initramfs: string;
  /** What its root filesystem is made of. */
  readonly tree: string;
}

let made: Guest | undefined;

/**
 * The tests of the calling file boot VMs, on this filesystem; where none can be had they are skipped with the reason.
 */
export function bootsVms(filesystem: Filesystem): void {
  let reason = filesystem.missing ?? lacks('qemu-system-x86_64');
  beforeAll(() => {
    if (reason === undefined) reason = makeGuest();
  }, TIMEOUT.timeout);
  beforeEach(({ skip }) => {
    if (reason !== undefined) skip(reason);
  });
}

export function guest(): Guest {
  if (made === undefined) throw new Error('bootsVms() was not called');
  return made;
}

/** A host with the guest in its catalog. */
export async function hostWithGuest(filesystem: Filesystem): Promise<Host> {
  const host = await Host.in(filesystem.path);
  await host.registry.publishStack(STACK, guest().tree, { sizeBytes: TEMPLATE_BYTES });
  return host;
}

/** Returns why it cannot be made. */
function makeGuest(): string | undefined {
  try {
    const output = execFileSync('bash', ['test/vm/make-guest.sh', resolve('.cache/vm')], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const folder = output.trim();
    made = { kernel: `${folder}/kernel`, initramfs: `${folder}/initramfs`, tree: `${folder}/tree` };
    return undefined;
  } catch (error) {
    const { status, stderr } = error as { status?: number; stderr?: string };
    if (status === CANNOT) return String(stderr).trim().split('\n').at(-1);
    throw error;
  }
}
