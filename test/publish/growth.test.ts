// A program that is at work is told from one that waits for ever, and from one that writes for ever.
import { appendFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { growsUntilEnd } from '../../src/publish/growth.js';
import { Host } from '../fixtures/host.js';

// Longer than the second between two looks.
const SILENCE_MS = 1500;
const MAX_BYTES = 2 ** 20;

test('a program that writes nothing is silent, and one that has ended is not', async () => {
  const { root } = await Host.in();
  expect(await growsUntilEnd(new PassThrough(), root, SILENCE_MS, MAX_BYTES)).toBe('silent');
  for (const stdout of [new PassThrough().end('output'), new PassThrough().destroy()])
    expect(await growsUntilEnd(stdout, root, 60_000, MAX_BYTES)).toBe('ended');
});

test('as long as a file below grows it is at work, whatever comes and goes beside', async () => {
  const { root } = await Host.in();
  const stdout = new PassThrough();
  const grown = growsUntilEnd(stdout, root, SILENCE_MS, MAX_BYTES);
  for (let i = 0; i < 40; i++) {
    await mkdir(join(root, 'a/b'), { recursive: true });
    await appendFile(join(root, 'file'), 'x');
    await sleep(60);
    await rm(join(root, 'a'), { recursive: true });
  }
  stdout.end();
  expect(await grown).toBe('ended');
});

test('a folder that is not there fails nothing: the program tells more', async () => {
  const { root } = await Host.in();
  const grown = growsUntilEnd(new PassThrough(), join(root, 'none'), SILENCE_MS, MAX_BYTES);
  expect(await grown).toBe('silent');
});

test('more than was allowed is too large, wherever it lies below', async () => {
  const { root } = await Host.in();
  await mkdir(join(root, 'a/b'), { recursive: true });
  await appendFile(join(root, 'a/b/file'), Buffer.alloc(MAX_BYTES + 1));
  expect(await growsUntilEnd(new PassThrough(), root, 60_000, MAX_BYTES)).toBe('too large');
});
