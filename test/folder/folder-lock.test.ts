// The lock on the name of a slot or stack: waited for without a thread, and not for ever.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { type NativeFolder, native } from '../../src/addon/native.js';
import { withLock } from '../../src/folder/folder-lock.js';
import { Task } from '../../src/system/task.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

async function folderWith(name: string): Promise<NativeFolder> {
  const host = await Host.in();
  await mkdir(join(host.clonesDir, name), { recursive: true });
  const { handle } = await native().openFolder(host.clonesDir);
  onTestFinished(async () => {
    await native().closeFolder(handle);
    native().dispose(handle);
  });
  return handle;
}

const growing = (signal?: AbortSignal) => new Task('growing vm-1', signal);

/** Takes the lock and keeps it until the function that it resolves to is called. */
async function holdLock(handle: NativeFolder): Promise<() => Promise<unknown>> {
  let taken: () => void = () => {};
  let release: () => void = () => {};
  const isTaken = new Promise<void>((resolve) => {
    taken = resolve;
  });
  const held = withLock(growing(), handle, 'vm-1', () => {
    taken();
    return new Promise<void>((resolve) => {
      release = resolve;
    });
  });
  await isTaken;
  return () => {
    release();
    return held;
  };
}

test('work on one name waits for other work on it, and for none on another', async () => {
  const handle = await folderWith('vm-1');
  const end = await holdLock(handle);
  let entered = false;
  const next = withLock(growing(), handle, 'vm-1', async () => {
    entered = true;
  });
  expect(await withLock(growing(), handle, 'vm-2', async () => 'done')).toBe('absent');
  await sleep(50);
  expect(entered).toBe(false);
  await end();
  await next;
  expect(entered).toBe(true);
});

test('the lock is free again after work that failed', async () => {
  const handle = await folderWith('vm-1');
  const failing = withLock(growing(), handle, 'vm-1', async () => {
    throw new Error('no luck');
  });
  await expect(failing).rejects.toThrow('no luck');
  expect(await withLock(growing(), handle, 'vm-1', async () => 'done')).toBe('done');
});

test('a caller can stop waiting', async () => {
  const handle = await folderWith('vm-1');
  const end = await holdLock(handle);
  const waiting = withLock(growing(AbortSignal.timeout(30)), handle, 'vm-1', async () => {});
  await rejection(waiting, 'ABORT_ERR');
  await end();
});

test('a process that never lets go stops the others for two minutes, not for ever', async () => {
  const handle = await folderWith('vm-1');
  const end = await holdLock(handle);
  const start = performance.now();
  const clock = vi
    .spyOn(performance, 'now')
    .mockReturnValueOnce(start)
    .mockReturnValue(start + 119_000);
  onTestFinished(() => {
    clock.mockRestore();
  });
  const waiting = withLock(growing(), handle, 'vm-1', async () => {});
  const outcome = waiting.then(
    () => 'done',
    (error: Error) => error,
  );
  expect(await Promise.race([outcome, sleep(50, 'still waiting')])).toBe('still waiting');
  clock.mockReturnValue(start + 120_001);
  const { message } = await rejection(waiting, 'SLOT_BUSY');
  expect(message).toBe(
    'growing vm-1: another process has been working on "vm-1" for 120 s; try again, or end that process',
  );
  await end();
});
