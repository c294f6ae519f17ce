// Measures how long a clone and `cp` take, in a temporary folder on the file system in question.
import { open, rm, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { RootfsError, RootfsRegistry, type Strategy, TEMPLATE_ROOTFS_FILE } from '../index.js';
import { run } from '../programs/run-program.js';
import { makeFolders } from '../system/make-folders.js';
import { withScratch } from './scratch.js';
import { formatSize } from './sizes.js';

const STACK = 'probe';

// Without reflinks: the template, a clone and what `cp` makes.
const COPIES = 3;

interface CloneSpeed {
  readonly imageBytes: number;
  readonly rounds: number;
  readonly strategy: Strategy;
  /** Medians, in microseconds. */
  readonly cloneMicros: number;
  readonly cpMicros: number;
}

interface SpeedOptions {
  readonly imageBytes: number;
  readonly rounds: number;
  /** As the caller's registry has it. */
  readonly sealing: 'auto' | 'off';
  readonly signal: AbortSignal;
}

/** Rejects with what the system failed with. */
export async function measureCloneSpeed(folder: string, options: SpeedOptions): Promise<CloneSpeed> {
  return withScratch(folder, async (scratch) => {
    const { imageBytes, sealing, signal } = options;
    const templateDir = join(scratch, 'templates');
    const template = join(templateDir, STACK, TEMPLATE_ROOTFS_FILE);
    await makeFolders(dirname(template), 0o700);
    await requireSpace(folder, imageBytes);
    await writeImage(template, imageBytes, signal);
    const registry = new RootfsRegistry({ templateDir, clonesDir: join(scratch, 'clones'), sealing });
    try {
      return await measure(registry, template, join(scratch, 'copy'), options);
    } finally {
      await registry.close();
    }
  });
}

/** Half of the disk stays for the VMs that run on it: a guest whose host's disk is full has errors. */
async function requireSpace(folder: string, imageBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const needed = 2 * COPIES * imageBytes;
  if (bavail * bsize >= needed) return;
  throw new RootfsError(
    'ENOSPC',
    `${folder} has ${formatSize(bavail * bsize)} free: measuring with an image of ${formatSize(imageBytes)} is for ` +
      `disks with ${formatSize(needed)} free; name a smaller --size`,
    { path: folder },
  );
}

async function measure(
  registry: RootfsRegistry,
  template: string,
  copy: string,
  { imageBytes, rounds, signal }: SpeedOptions,
): Promise<CloneSpeed> {
  const clones: number[] = [];
  const copies: number[] = [];
  // The first one hashes and seals.
  const { strategy } = await registry.cloneForVm('warm-up', STACK, { writable: true, signal });
  for (let round = 0; round < rounds; round++) {
    const vm = `vm-${round}`;
    clones.push(await microsOf(() => registry.cloneForVm(vm, STACK, { writable: true, signal })));
    copies.push(await microsOf(() => cp(template, copy, signal)));
    // Copies would fill the disk.
    await registry.release(vm);
    await rm(copy);
    await registry.drain();
  }
  return { imageBytes, rounds, strategy, cloneMicros: median(clones), cpMicros: median(copies) };
}

async function writeImage(path: string, bytes: number, signal: AbortSignal): Promise<void> {
  const file = await open(path, 'wx');
  try {
    const block = Buffer.alloc(1024 * 1024, 'some data of a template; ');
    for (let written = 0; written < bytes; written += block.length) {
      signal.throwIfAborted();
      await file.write(block, 0, Math.min(block.length, bytes - written));
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function cp(from: string, to: string, signal: AbortSignal): Promise<void> {
  const { status, stderr } = await run('cp', ['--reflink=auto', '--', from, to], signal);
  if (status !== 0) throw new Error(`cp failed: ${stderr.trim()}`);
}

async function microsOf(work: () => Promise<unknown>): Promise<number> {
  const started = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - started) / 1000;
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return Math.round(sorted[Math.floor(sorted.length / 2)] ?? 0);
}
