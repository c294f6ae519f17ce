import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FILES_AT_ONCE } from '../../src/image/hash.js';
import { sumOf } from '../../src/image/hash-files.js';
import { hashFiles, type Progress } from '../../src/index.js';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';

async function filesOf(contents: readonly string[]): Promise<string[]> {
  const folder = join((await Host.in()).root, 'files');
  await mkdir(folder);
  const paths = contents.map((_, i) => join(folder, `${i}`));
  await Promise.all(paths.map((path, i) => writeFile(path, contents[i] as string)));
  return paths;
}

test('only so many files are open at once, and the digests are in the order of the paths', async () => {
  const contents = Array.from({ length: 3 * FILES_AT_ONCE }, (_, i) => `${1000 + i}`);
  const reports: Progress[] = [];
  const digests = await hashFiles(await filesOf(contents), { onProgress: (sum) => reports.push(sum) });
  expect(digests).toEqual(contents.map((text) => sha256(text)));
  expect(reports[0]?.bytesTotal).toBeLessThanOrEqual(4 * FILES_AT_ONCE);
  expect(reports.at(-1)).toEqual({ bytesDone: 4 * contents.length, bytesTotal: 4 * contents.length });
});

test('a report costs the same however many files there are', () => {
  const reports: Progress[] = [];
  const report = sumOf((sum) => reports.push(sum));
  let reads = 0;
  for (let i = 0; i < 1000; i++) {
    report()({
      get bytesDone() {
        reads++;
        return 1;
      },
      bytesTotal: 2,
    });
  }
  expect(reports.at(-1)).toEqual({ bytesDone: 1000, bytesTotal: 2000 });
  expect(reads).toBe(1000);
});
