// How long a clone takes here, beside `cp`: measured in a folder of its own on the file system in question, which is gone afterwards.
import { mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { RootfsRegistry, type Strategy } from '../index.js';
import { run } from '../programs.js';

export interface CloneSpeed {
  readonly imageBytes: number;
  readonly rounds: number;
  readonly strategy: Strategy;
  /** Medians, in microseconds. */
  readonly cloneMicros: number;
  readonly cpMicros: number;
}

/** Holds a dot: no slot, and no template either, can have this name. */
const SCRATCH = '.microvm-rootfs-bench-';

/** `sealing` as the caller's registry has it. Rejects with what the system failed with. */
export async function measureCloneSpeed(
  folder: string,
  options: { imageBytes: number; rounds: number; sealing: 'auto' | 'off'; signal: AbortSignal },
): Promise<CloneSpeed> {
  const { imageBytes, rounds, sealing, signal } = options;
  const scratch = await mkdtemp(join(folder, SCRATCH));
  const templateDir = join(scratch, 'templates');
  const registry = new RootfsRegistry({ templateDir, clonesDir: join(scratch, 'clones'), sealing });
  try {
    const template = join(templateDir, 'probe', 'rootfs.ext4');
    await mkdir(join(templateDir, 'probe'), { recursive: true });
    await writeImage(template, imageBytes, signal);
    const clones: number[] = [];
    const copies: number[] = [];
    // The first is warm-up: it hashes and seals.
    const first = await registry.cloneForVm('warm-up', 'probe', { writable: true, signal });
    for (let round = 0; round < rounds; round++) {
      clones.push(
        await microsOf(() => registry.cloneForVm(`vm-${round}`, 'probe', { writable: true, signal })),
      );
      const copy = join(scratch, `copy-${round}`);
      copies.push(await microsOf(() => cp(template, copy, signal)));
      // Where clones are copies they would add up.
      await registry.release(`vm-${round}`);
      await rm(copy);
      await registry.drain();
    }
    return {
      imageBytes,
      rounds,
      strategy: first.strategy,
      cloneMicros: median(clones),
      cpMicros: median(copies),
    };
  } finally {
    await registry.close();
    await rm(scratch, { recursive: true, force: true });
  }
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
