import { expect, test } from 'vitest';
import { isStackName, parseStackName } from '../../src/catalog/stack-name.js';
import { thrown } from '../fixtures/rejection.js';

test.each(['debian', 'web-01', 'a b', 'ä', 's'.repeat(255)])('%j names a stack', (name) => {
  expect(parseStackName(name)).toBe(name);
});

test.each([
  '',
  '.',
  '..',
  '.hidden',
  'a/b',
  'a\0b',
  '\ud800',
  's'.repeat(256),
  'ä'.repeat(128),
  7,
  undefined,
])('%j names none', (name) => {
  expect(isStackName(name)).toBe(false);
  expect(thrown(() => parseStackName(name), 'INVALID_STACK_NAME').message).toMatch(
    typeof name === 'string' ? /the name of a folder/ : /it must be a string$/,
  );
});
