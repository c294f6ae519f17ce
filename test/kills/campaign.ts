// All points of all operations on some filesystems: which are visited, and what is said of it in the end.
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { lacks } from '../fixtures/tools.js';
import { Artifacts } from './artifacts.js';
import { OPERATIONS, type Operation } from './operations.js';
import { shapeOf } from './points.js';
import { sample } from './sample.js';
import { Masters } from './site.js';
import type { Ground, Surveyed, Visit } from './visits.js';

/** Everything: hours. */
export const FULL = process.env.KILLS === 'full';

/** Some points of every operation, minutes; rather than some points of some operations, as in `npm test`. */
export const QUICK = process.env.KILLS === 'quick';

/**
 * Which operations and points are visited where not all are. The same ones each time, so that a change is compared with
 * what was there before it; another number gives another sample.
 */
export const SEED = Number(process.env.KILLS_SEED ?? 1);

const TOOLS = ['strace', 'mke2fs', 'resize2fs', 'e2fsck', 'debugfs'] as const;
const REMOTE_TOOLS = ['docker-registry', 'zstd'] as const;

const TIMEOUT_MS = FULL ? 3_600_000 : 300_000;

/**
 * Declares a test for each operation on each filesystem, or for `some` of them, and prints a table of what they
 * visited.
 */
export function campaign(
  title: string,
  filesystems: readonly string[],
  some: number,
  survey: (ground: Ground, filesystem: string) => Promise<Surveyed>,
  concerned: (operation: Operation, filesystem: string) => boolean = () => true,
): void {
  const rows: Record<string, object> = {};
  // Grown images are then the same byte for byte.
  beforeAll(() => {
    process.env.E2FSPROGS_FAKE_TIME = '1700000000';
  });
  describe.each(inject('filesystems').filter(({ name }) => filesystems.includes(name)))(
    `${title} on $name`,
    (filesystem) => {
      const here = OPERATIONS.filter(
        (operation) =>
          (operation.on === undefined || (operation.on === 'reflink') === filesystem.reflinks) &&
          concerned(operation, filesystem.name),
      );
      test.for(FULL || QUICK ? here : sampled(here, some))(
        '$name',
        { timeout: TIMEOUT_MS },
        async (operation, { skip }) => {
          const missing = filesystem.missing ?? lacks(...TOOLS, ...(operation.remote ? REMOTE_TOOLS : []));
          if (missing !== undefined) skip(missing);
          const folder = await mkdtemp(join(filesystem.path, 'kills-'));
          onTestFinished(() => rm(folder, { recursive: true, force: true }));
          const masters = await Masters.make(folder);
          const artifacts = operation.remote ? await Artifacts.make(folder, masters) : undefined;
          const ground = { folder, masters, artifacts, operation };
          const started = performance.now();
          const { points, visits } = await survey(ground, filesystem.name);
          const faults = visits.filter((visit) => visit.faults.length > 0);
          const row = {
            points,
            visits: visits.length,
            elsewhere: visits.filter(({ reached }) => !reached).length,
            faults: faults.length,
            seconds: Math.round((performance.now() - started) / 1000),
            ...counted(visits),
          };
          rows[`${operation.name} (${filesystem.name})`] = row;
          // An hour is long to wait for the first word.
          if (FULL) console.log(operation.name, filesystem.name, JSON.stringify(row), faults.map(inWords));
          expect(faults.map(inWords)).toEqual([]);
        },
      );
    },
  );
  afterAll(() => {
    console.log(
      `${title}; ${FULL ? 'all points' : `points chosen with KILLS_SEED=${SEED}`}; elsewhere: not at the very call`,
    );
    console.table(rows);
  });
}

/** Some of those on this host, and one that needs a registry. */
function sampled(operations: readonly Operation[], some: number): Operation[] {
  const isRemote = ({ remote }: Operation) => remote === true;
  const local = operations.filter((operation) => !isRemote(operation));
  return [...sample(local, some, SEED), ...sample(operations.filter(isRemote), 1, SEED)];
}

function counted(visits: readonly Visit[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { outcome } of visits) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

function inWords({ point, what, outcome, faults }: Visit): string {
  return (
    `${what} at ${point.caller}'s call ${point.name} ${point.when}, ${shapeOf(point.line)}: ` +
    `${outcome}: ${faults.join('; ')}`
  );
}
