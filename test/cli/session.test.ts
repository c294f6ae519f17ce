import { expect, test } from 'vitest';
import { Interrupted } from '../../src/cli/interruption.js';
import { reportError } from '../../src/cli/report-error.js';
import { reported } from '../../src/cli/session.js';
import { RootfsError } from '../../src/index.js';
import { thrown } from '../fixtures/rejection.js';

test('what an interrupted collection has done is reported, and the status is that of Ctrl-C', async () => {
  const report = { released: ['vm-1'], inUse: [], unknown: [] };
  const cause = new Interrupted('SIGINT');
  const aborted = new RootfsError('ABORT_ERR', 'collecting slots was aborted', { cause, report });
  const outcome = await reported(Promise.reject(aborted));
  expect(outcome.report).toBe(report);
  const error = thrown(outcome.throwIfFailed, 'ABORT_ERR');
  expect(reportError(error, { json: true, verbose: false }, 'microvm-rootfs gc')).toBe(130);
});

test('without a report there is nothing to tell', async () => {
  const error = new RootfsError('ABORT_ERR', 'collecting slots was aborted');
  await expect(reported(Promise.reject(error))).rejects.toBe(error);
});
