// The exit status of every code: as docs/cli.md has it.
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { expect, test } from 'vitest';
import { EXIT, exitCodeOf } from '../../src/cli/exit-codes.js';

const documented = readFileSync('docs/cli.md', 'utf8')
  .split('\n## ')
  .find((section) => section.startsWith('Exit status'));

test('every code in the table has the status of its row', () => {
  let count = 0;
  for (const [, status, codes = ''] of (documented ?? '').matchAll(/^\| (\d) \| [^|]* \| (.*) \|$/gm))
    for (const [, code = ''] of codes.matchAll(/`([A-Z0-9_]+)`/g)) {
      // Reported by the parser of arguments.
      if (code === 'USAGE') continue;
      expect(exitCodeOf(code), code).toBe(Number(status));
      count++;
    }
  expect(count).toBeGreaterThan(50);
});

test('every code of the library has a status by what it says', () => {
  const source = readFileSync('src/system/errors.ts', 'utf8');
  const codes = [...source.matchAll(/^ {2}\| '([A-Z0-9_]+)'/gm)].map(([, code]) => code as string);
  expect(codes.length).toBeGreaterThan(50);
  const programs = /^(RESIZE2FS|E2FSCK|MKE2FS|PROGRAM)_NOT_FOUND$/;
  for (const code of codes) {
    const status = exitCodeOf(code);
    if (programs.test(code)) expect(status, code).toBe(EXIT.failed);
    else if (code.endsWith('_NOT_FOUND')) expect(status, code).toBe(EXIT.notFound);
    else if (/_(EXISTS|IN_USE|MISMATCH|COLLISION|REFUSED|CHANGED)$/.test(code))
      expect(status, code).toBe(EXIT.refused);
    else if (code.startsWith('INVALID_')) expect(status, code).toBe(EXIT.usage);
    expect(status, code).not.toBe(EXIT.ok);
    // Our own codes are no failures of the system, whatever letter they begin with.
    expect(status, code).not.toBe(EXIT.system);
  }
});

test('every code of the system is its failure, except that something is not there', () => {
  for (const code of [...Object.keys(constants.errno), 'EDQUOT', 'ESTALE', 'E999', 'EUCLEAN'])
    expect(exitCodeOf(code), code).toBe(code === 'ENOENT' ? EXIT.notFound : EXIT.system);
});

test('whatever else is a failure', () => {
  for (const code of [
    'UNEXPECTED',
    'ABORT_ERR',
    'ERR_INVALID_ARG_TYPE',
    '',
    'E',
    'Enoent',
    'EXISTS_NOT',
    'ARTIFACT_INVALID',
  ])
    expect(exitCodeOf(code), code).toBe(EXIT.failed);
});
