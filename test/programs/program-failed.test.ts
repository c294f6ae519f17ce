import { expect, test } from 'vitest';
import { programFailed } from '../../src/programs/program-failed.js';

test('of a program that wrote more than it may, the limit is named', () => {
  const exit = { status: null, signal: 'SIGXFSZ', stdout: '', stderr: '' } as const;
  const error = programFailed('MKE2FS_FAILED', 'mke2fs', '/t/image', exit);
  expect(error).toMatchObject({ code: 'MKE2FS_FAILED' });
  expect(error.message).toMatch(/killed by SIGXFSZ.*ulimit -f/);
});
