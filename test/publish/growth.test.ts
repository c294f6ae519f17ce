// A program that is at work is told from one that waits for ever.
import { appendFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { growsUntilEnd } from '../../src/publish/growth.js';
import { Host } from '../fixtures/host.js';

const SILENCE_MS = 300;

test('a program that writes nothing is silent, and one that has ended is not', async () => {
  const { root } = await Host.in();
  expect(await growsUntilEnd(new PassThrough(), root, SILENCE_MS)).toBe(false);
  for (const stdout of [new PassThrough().end('output'), new PassThrough().destroy()])
    expect(await growsUntilEnd(stdout, root, 60_000)).toBe(true);
});

test('as long as a file below grows it is at work, whatever comes and goes beside', async () => {
  const { root } = await Host.in();
  const stdout = new PassThrough();
  const grown = growsUntilEnd(stdout, root, SILENCE_MS);
  for (let i = 0; i < 10; i++) {
    await mkdir(join(root, 'a/b'), { recursive: true });
    await appendFile(join(root, 'file'), 'x');
    await sleep(SILENCE_MS / 5);
    await rm(join(root, 'a'), { recursive: true });
  }
  stdout.end();
  expect(await grown).toBe(true);
});

test('a folder that is not there fails nothing: the program tells more', async () => {
  const { root } = await Host.in();
  expect(await growsUntilEnd(new PassThrough(), join(root, 'none'), SILENCE_MS)).toBe(false);
});
