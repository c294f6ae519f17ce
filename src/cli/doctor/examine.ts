// Everything that doctor checks, in the order in which it prints it. It works in temporary folders and changes nothing
// else.
import type { RootfsConfig } from '../../index.js';
import { clonesFolder } from './clones.js';
import type { Finding } from './finding.js';
import { scatteredDisks } from './scattered.js';
import { addon, e2fsprogs, kernel, runtime } from './software.js';
import { reservedStore } from './store.js';
import { snapshotsFolder, templateImages, templatesFolder } from './templates.js';
import { zfsBelow } from './zfs.js';

/** `sameFlags` are for the commands that it advises: the flags that give them these settings. */
export async function examine(
  config: RootfsConfig,
  sameFlags: readonly string[],
  signal: AbortSignal,
): Promise<Finding[]> {
  // Other systems have none of the rest.
  if (process.platform !== 'linux') return [kernel()];
  const clones = await clonesFolder(config, sameFlags, signal);
  return [
    kernel(),
    runtime(),
    await addon(),
    ...(await e2fsprogs(config, signal)),
    ...(await templatesFolder(config)),
    ...(await templateImages(config, clones.reflinks)),
    ...clones.findings,
    ...(await snapshotsFolder(config)),
    ...(await zfsBelow(config, clones.reflinks)),
    ...(await scatteredDisks(config, signal)),
    ...(await reservedStore(config)),
  ];
}
