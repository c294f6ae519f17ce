import { mkdir, realpath, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mountPath } from '../../src/cli/mount-path.js';
import { Host } from '../fixtures/host.js';

test('a path is as the kernel tells it of a mount', async () => {
  const root = await realpath((await Host.in()).root);
  await mkdir(join(root, 'A'));
  await mkdir(join(root, 'B/sub'), { recursive: true });
  await symlink('../B/sub', join(root, 'A/link'));
  expect(mountPath(`${root}/A//./x/`)).toBe(`${root}/A/x`);
  expect(mountPath(`${root}/A/link/../x/`)).toBe(`${root}/B/x`);
  expect(mountPath(`${root}/A/link/..`)).toBe(`${root}/B`);
  expect(mountPath(`${root}/A/..x`)).toBe(`${root}/A/..x`);
  expect(mountPath(`${root}/none/../x`)).toBe(`${root}/none/../x`);
  expect(mountPath('x')).toBe(join(process.cwd(), 'x'));
});
