// What must not be in a message that repeats another program's words.
import { expect, test } from 'vitest';
import { redact, withoutQueries } from '../../src/system/redact.js';

test.each([
  ['Get "https://s3.example/b?X-Sig=S&a=b": EOF', 'Get "https://s3.example/b": EOF'],
  ['Get \\"http://s3.example/b?X-Sig=S\\u0026a=b\\": EOF', 'Get \\"http://s3.example/b\\": EOF'],
  ['is it there? at http://a/b no', 'is it there? at http://a/b no'],
])('queries of URLs are left out of %s', (text, told) => {
  expect(withoutQueries(text)).toBe(told);
});

test('a secret is hidden in each spelling, the longer one first, and no short word', () => {
  expect(redact('a:se/cret, se/cret, se%2Fcret, pw', ['se/cret', 'a:se/cret', 'pw', ''])).toBe(
    '[hidden], [hidden], [hidden], pw',
  );
});
