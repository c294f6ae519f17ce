// Names of error numbers: those of the kernel's headers, in Node's spelling.
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { expect, test } from 'vitest';
import { errnoName } from '../../src/system/errno-names.js';

const HEADERS = ['/usr/include/asm-generic/errno-base.h', '/usr/include/asm-generic/errno.h'];

test('every number of the kernel’s headers has its name', ({ skip }) => {
  if (!HEADERS.every((path) => existsSync(path))) skip('needs the kernel headers (package linux-libc-dev)');
  const names = new Map<number, string>();
  for (const path of HEADERS)
    for (const [, name = '', number] of readFileSync(path, 'utf8').matchAll(/^#define\s+(E\w+)\s+(\d+)/gm))
      names.set(Number(number), name);
  expect(names.size).toBeGreaterThan(120);
  // Node's spelling: the two are one number on Linux.
  names.set(95, 'ENOTSUP');
  for (const [number, name] of names) expect(errnoName(-number), `${number}`).toBe(name);
});

test('every number that Node knows has Node’s name, or one that is equal to it', () => {
  const aliases = new Set(['EWOULDBLOCK', 'EOPNOTSUPP']);
  for (const [name, number] of Object.entries(constants.errno))
    if (!aliases.has(name)) expect(errnoName(-number)).toBe(name);
});

test('a number without a name is shown as a number, what NFS lets out has its name', () => {
  expect([-999, -200, -41, -58].map(errnoName)).toEqual(['E999', 'E200', 'E41', 'E58']);
  expect([-521, -524, -528].map(errnoName)).toEqual(['EBADHANDLE', 'ENOTSUPP', 'EJUKEBOX']);
});
