import { utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, onTestFinished, test, vi } from 'vitest';
import { native } from '../../src/addon/native.js';
import { PullFolder } from '../../src/remote/pull-folder.js';
import { Task } from '../../src/system/task.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';

test('a partial pull that was continued while its removal waited stays', async () => {
  const { root } = await Host.in(inject('scratch'));
  const pulls = new PullFolder(root);
  onTestFinished(() => pulls.close());
  const lock = vi.spyOn(native(), 'lockSlot');
  onTestFinished(() => lock.mockRestore());
  const task = new Task('a pull', undefined);
  let removal: Promise<void> | undefined;
  const path = await pulls.hold(task, 'sha256:1', async (folder) => {
    await utimes(folder, 0, 0);
    const before = lock.mock.calls.length;
    removal = pulls.removeOld(task);
    // It has seen that the folder is old.
    await vi.waitFor(() => expect(lock.mock.calls.length).toBeGreaterThan(before));
    await writeFile(join(folder, 'chunks'), 'fetched');
    return folder;
  });
  await removal;
  expect(await exists(join(path, 'chunks'))).toBe(true);
});
