import { constants } from 'node:os';
import { expect, test } from 'vitest';
import {
  abortError,
  asRootfsError,
  errnoName,
  failedWith,
  isSystemError,
  RootfsError,
} from '../../src/system/errors.js';

const noSpace = { errno: -constants.errno.ENOSPC, syscall: 'ioctl(FICLONE)', path: '/t', dest: '/c' };

test('a failure of the system keeps its code, errno, syscall, path and dest', () => {
  const error = asRootfsError('cloning', noSpace);
  expect(error).toBeInstanceOf(RootfsError);
  expect(error).toMatchObject({ name: 'RootfsError', code: 'ENOSPC', ...noSpace });
});

test('its message says what was tried, on which paths, what went wrong and what to do', () => {
  const { message } = asRootfsError('cloning debian', noSpace) as RootfsError;
  for (const part of ['cloning debian', '/t', '/c', 'ENOSPC', 'full']) expect(message).toContain(part);
});

test('an error of ours, and one that is none of the system, pass through', () => {
  const ours = new RootfsError('STACK_NOT_FOUND', 'no such stack');
  const bug = new TypeError('bug');
  expect(asRootfsError('cloning', ours)).toBe(ours);
  expect(asRootfsError('cloning', bug)).toBe(bug);
});

test("an error of Node's own fs becomes the cause", () => {
  const cause = Object.assign(new Error('EACCES'), {
    errno: -13,
    code: 'EACCES',
    syscall: 'open',
    path: '/t',
  });
  expect(asRootfsError('listing', cause)).toMatchObject({ code: 'EACCES', path: '/t', cause });
});

test('an error without system details has no such properties', () => {
  const error = new RootfsError('SLOT_TORN', 'torn');
  for (const key of ['errno', 'syscall', 'path', 'dest', 'cause']) expect(error).not.toHaveProperty(key);
});

test('an abort has the name that others look for, and its reason as cause', () => {
  const reason = new Error('shutting down');
  const error = abortError('hashing', AbortSignal.abort(reason));
  expect(error).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: reason });
  expect(error).toBeInstanceOf(RootfsError);
});

test.each([
  [constants.errno.ENOENT, 'ENOENT'],
  [constants.errno.EDQUOT, 'EDQUOT'],
  [constants.errno.ESTALE, 'ESTALE'],
  [117, 'EUCLEAN'],
  // libuv's name for EOPNOTSUPP, which has the same number.
  [constants.errno.EOPNOTSUPP, 'ENOTSUP'],
])('errno %i is %s', (errno, name) => {
  expect(errnoName(-errno)).toBe(name);
});

test('telling system errors from others', () => {
  expect(isSystemError(noSpace)).toBe(true);
  expect(failedWith(noSpace, 'ENOSPC')).toBe(true);
  for (const other of [null, undefined, 'ENOSPC', {}, { errno: '1', syscall: 'open' }, new Error('ENOSPC')]) {
    expect(failedWith(other, 'ENOSPC')).toBe(false);
  }
});

test('every error number of Linux has a name', async () => {
  const { errnoName } = await import('../../src/system/errno-names.js');
  const unnamed = Array.from({ length: 133 }, (_, i) => i + 1).filter((n) => /^E\d/.test(errnoName(-n)));
  // Those two numbers are not used; 7 is E2BIG.
  expect(unnamed).toEqual([7, 41, 58]);
  expect([74, 37, 126, 67, 95, 524, 4000].map((n) => errnoName(-n))).toEqual([
    'EBADMSG',
    'ENOLCK',
    'ENOKEY',
    'ENOLINK',
    'ENOTSUP',
    'ENOTSUPP',
    'E4000',
  ]);
});

test.each([
  ['EPERM', 'syncfs', /sandbox \(seccomp\)/],
  ['ENOSYS', 'statx', /sandbox \(seccomp\)/],
  ['EINVAL', 'fchown', /user namespace.*uid_map/],
] as const)('%s of %s has advice', (code, syscall, advice) => {
  const { message } = asRootfsError('cloning', { errno: -constants.errno[code], syscall }) as RootfsError;
  expect(message).toMatch(advice);
});
