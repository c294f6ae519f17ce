import { mkdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { expect, test, vi } from 'vitest';
import { findProgram } from '../../src/programs/find-program.js';
import { Host } from '../fixtures/host.js';
import { script } from './script.js';

test('a name is looked up on PATH, in its order, before system folders', async () => {
  const host = await Host.in();
  const path = await script(host, 'sh', '');
  vi.stubEnv('PATH', `/nonexistent::${host.root}:/bin`);
  expect(await findProgram('sh')).toBe(path);
  vi.unstubAllEnvs();
});

test('a relative folder of PATH is that of this process, wherever the program starts', async () => {
  const host = await Host.in();
  const path = await script(host, 'bin/tool', '');
  vi.stubEnv('PATH', relative(process.cwd(), join(host.root, 'bin')));
  expect(await findProgram('tool')).toBe(path);
  vi.unstubAllEnvs();
});

test('what is a folder or not executable is passed over', async () => {
  const host = await Host.in();
  await writeFile(join(host.root, 'plain'), '');
  vi.stubEnv('PATH', host.root);
  expect(await findProgram('plain')).toBeUndefined();
  expect(await findProgram(join(host.root, 'plain'))).toBeUndefined();
  expect(await findProgram(join(host.root, 'missing'))).toBeUndefined();
  vi.unstubAllEnvs();
});

test('a folder of the name is passed over, on PATH and behind a path', async () => {
  const host = await Host.in();
  await mkdir(join(host.root, 'first/tool'), { recursive: true });
  const tool = await script(host, 'second/tool', '');
  vi.stubEnv('PATH', `${host.root}/first:${host.root}/second`);
  expect(await findProgram('tool')).toBe(tool);
  expect(await findProgram(join(host.root, 'first/tool'))).toBeUndefined();
  vi.unstubAllEnvs();
});

test('without a PATH the usual folders are looked in', async () => {
  vi.stubEnv('PATH', undefined);
  expect(await findProgram('sh')).toMatch(/^(\/usr)?\/bin\/sh$/);
  vi.unstubAllEnvs();
});
