// One host on each kind of disk, for a test file: made when it is first wanted, gone with the file.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { type RootfsConfig, RootfsRegistry } from '../../src/index.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Workspace } from '../fixtures/filesystems.js';
import { CutDisk, type DiskKind } from './cut-disk.js';
import { CutHost } from './host.js';

export interface CutBench {
  readonly disk: CutDisk;
  readonly host: CutHost;
}

const KINDS: readonly string[] = ['XFS', 'XFS without reflink', 'btrfs', 'ext4'] satisfies DiskKind[];

/** Declares a suite for each kind of disk, or for `only` one. */
export function describeEachDisk(
  suite: (kind: DiskKind, bench: () => Promise<CutBench>) => void,
  only?: string,
): void {
  const workspace = new Workspace(mkdtempSync(join(tmpdir(), 'power-cuts-')));
  afterAll(() => workspace.dispose());
  describeEachFilesystem(
    ({ name }) => {
      let made: Promise<CutBench> | undefined;
      suite(name as DiskKind, () => {
        made ??= makeBench(workspace, name as DiskKind);
        return made;
      });
    },
    ({ name }) => KINDS.includes(name) && (only === undefined || only === name),
  );
}

async function makeBench(workspace: Workspace, kind: DiskKind): Promise<CutBench> {
  let host: CutHost | undefined;
  const disk = await CutDisk.make(workspace, kind, async (path) => {
    host = new CutHost(path);
    await host.prepare();
  });
  return { disk, host: host as CutHost };
}

/** Runs the work with a registry of the host's own. */
export async function use<T>(
  host: CutHost,
  work: (registry: RootfsRegistry) => Promise<T>,
  config: Partial<RootfsConfig> = {},
): Promise<T> {
  const registry = new RootfsRegistry({ ...host.config, ...config });
  try {
    return await work(registry);
  } finally {
    await registry.close();
  }
}
