// Which file system an image of a store holds.
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { KINDS, kindOf, STORE_KINDS } from '../../../src/cli/store/kinds.js';
import { writeSparse } from '../../fixtures/files.js';
import { Host } from '../../fixtures/host.js';
import { MiB, run } from '../../fixtures/images.js';
import { rejection } from '../../fixtures/rejection.js';
import { lacks, type Tool } from '../../fixtures/tools.js';

test.for(STORE_KINDS)(
  'the smallest %s that is allowed can be made, and is known for what it is',
  async (kind, { skip }) => {
    const [program, ...args] = KINDS[kind].make as [Tool, ...string[]];
    const missing = lacks(program);
    if (missing !== undefined) skip(missing);
    const path = join((await Host.in()).root, 'store');
    await writeSparse(path, KINDS[kind].minimumBytes);
    await run(program, [...args, path]);
    expect(await kindOf(path)).toBe(kind);
  },
);

test('what holds neither is no store, however short it is', async () => {
  const path = join((await Host.in()).root, 'file');
  for (const contents of ['', 'XFS', 'xfsb', '\0XFSB', '_BHRfS_M', 'XFSV']) {
    await writeFile(path, contents);
    expect((await rejection(kindOf(path), 'STORE_INVALID')).path).toBe(path);
  }
  await truncate(path, 10 * MiB);
  await rejection(kindOf(path), 'STORE_INVALID');
  // A magic that is cut off.
  await writeSparse(path, 0x10040 + 7, { 65600: Buffer.from('_BHRfS_') });
  await rejection(kindOf(path), 'STORE_INVALID');
  await expect(kindOf(join(path, 'x'))).rejects.toMatchObject({ code: 'ENOTDIR' });
});
