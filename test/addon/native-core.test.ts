// The addon's core without Node, built with sanitizers and run on real filesystems; and its static analysis. By default
// what is quick: AddressSanitizer with LeakSanitizer, UndefinedBehaviorSanitizer, and two filesystems.
// scripts/sanitizers.sh asks for the rest.
import { execFile } from 'node:child_process';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, inject, test } from 'vitest';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { lacks } from '../fixtures/tools.js';

const run = promisify(execFile);

/** Lists for -fsanitize, or `valgrind`: MICROVM_ROOTFS_SANITIZERS="address,undefined thread leak valgrind". */
const SANITIZERS = (process.env.MICROVM_ROOTFS_SANITIZERS ?? 'address,undefined').split(' ');
const ALL = process.env.MICROVM_ROOTFS_SANITIZERS !== undefined;
const QUICK = ['XFS', 'tmpfs'];

const OPTIONS = {
  ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1',
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1',
};

describe.each(SANITIZERS)('the core with %s', (sanitizer) => {
  const missing = sanitizer === 'valgrind' ? lacks('g++', 'make', 'valgrind') : lacks('g++', 'make');
  const sanitize = sanitizer === 'valgrind' ? 'none' : sanitizer;
  const folder = `.cache/native/${sanitize}`;
  const watch =
    sanitizer === 'valgrind'
      ? [
          'valgrind',
          '--quiet',
          '--leak-check=full',
          '--track-fds=yes',
          '--error-exitcode=9',
          '--fair-sched=yes',
        ]
      : [];

  async function execute(program: string, ...args: string[]): Promise<string> {
    const [command, ...rest] = [...watch, join(folder, program), ...args] as [string, ...string[]];
    const running = run(command, rest, { env: { ...process.env, ...OPTIONS } });
    // It says what failed on its standard output.
    return (await running.catch((error) => Promise.reject(new Error(`${error.message}${error.stdout}`))))
      .stdout;
  }

  beforeAll(async () => {
    if (missing === undefined) await run('make', ['-s', '-C', 'test/native', '-j2', `SANITIZE=${sanitize}`]);
  }, 600_000);

  // Arithmetic alone, and much of it: hours in valgrind.
  if (sanitizer !== 'valgrind') {
    test.skipIf(missing !== undefined)('SHA-256', { timeout: 300_000 }, async () => {
      expect(await execute('sha256_test')).toMatch(/, 0 failed/);
    });
  }

  describeEachFilesystem(
    (filesystem) => {
      test.skipIf(missing !== undefined)('all tests of the core pass', { timeout: 600_000 }, async () => {
        const work = await mkdtemp(join(filesystem.path, 'core-'));
        const output = await execute('core_test', work, ...(filesystem.reflinks ? ['reflinks'] : []));
        expect(output).toMatch(/^[1-9][0-9]* passed, 0 failed$/m);
      });
    },
    // On FUSE no lease can be had, so nobody can tell who has an image open: that is for the tests of the whole
    // library.
    ({ name, hidesOpenFiles }) =>
      !hidesOpenFiles && (sanitizer === 'valgrind' ? name === 'XFS' : ALL || QUICK.includes(name)),
  );
});

test.skipIf(lacks('cppcheck') !== undefined)('cppcheck finds nothing', { timeout: 120_000 }, async () => {
  const { stdout, stderr } = await run('bash', ['scripts/cppcheck.sh']);
  expect(stdout + stderr).toBe('');
});

test('the filesystems of the quick part are in the table', () => {
  expect(inject('filesystems').map(({ name }) => name)).toEqual(expect.arrayContaining(QUICK));
});
