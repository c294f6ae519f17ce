// Disks in so many extents that forking and snapshotting them is slow.
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { type RootfsConfig, RootfsRegistry } from '../../index.js';
import { STATE_FOLDER } from '../../system/state-folder.js';
import { type Finding, ok, warn } from './finding.js';

export async function scatteredDisks(config: RootfsConfig, signal: AbortSignal): Promise<Finding[]> {
  const isUsed = await lstat(join(config.clonesDir, STATE_FOLDER)).catch(() => undefined);
  if (isUsed === undefined) return [];
  const registry = new RootfsRegistry(config);
  try {
    const { slots, scattered } = await registry.usage({ signal });
    const [worst] = scattered;
    if (slots === 0) return [];
    if (worst === undefined) return [ok('extents', 'no disk is scattered: forks and snapshots are quick')];
    const disks = scattered.length === 1 ? '1 disk lies' : `${scattered.length} disks lie`;
    const detail = `${disks} in more than 1,000 extents, that of ${worst.vmId} in ${worst.extents}`;
    return [warn('extents', `${detail}: forks and snapshots are slow; docs/guide.md, "Scattered disks"`)];
  } catch (error) {
    signal.throwIfAborted();
    return [warn('extents', `not counted: ${(error as Error).message.split('\n')[0]}`)];
  } finally {
    await registry.close();
  }
}
