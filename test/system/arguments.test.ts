// What callers may pass in, and how a value that they may not is shown.
import { expect, test } from 'vitest';
import {
  absolutePath,
  isWellFormed,
  optionalBoolean,
  optionalFunction,
  optionalMode,
  optionalOwner,
  optionalSignal,
  readOptions,
  requireKnownKeys,
  requirePath,
  requireSizeBytes,
  show,
} from '../../src/system/arguments.js';
import { runChild } from '../fixtures/child.js';
import { thrown } from '../fixtures/rejection.js';

const refused = (call: () => unknown) => thrown(call, 'INVALID_ARGUMENT').message;

test.each<[unknown, string]>([
  ['text', '"text"'],
  ['a "quote"\n', '"a \\"quote\\"\\n"'],
  [null, 'null'],
  [undefined, 'undefined'],
  [[1, 2], 'an array'],
  [{ a: 1 }, 'an object'],
  [-0, '0'],
  [Number.NaN, 'NaN'],
  [10n, '10'],
  [Object.create(null), 'an object'],
])('value %# is shown as what it is', (value, shown) => {
  expect(show(value)).toBe(shown);
});

test('nothing that is shown moves the cursor, breaks the line or turns the text', () => {
  for (const character of [
    '\0',
    '\x1b',
    '\x7f',
    '\x9b',
    '\u2028',
    '\u2029',
    '\u202e',
    '\u200b',
    '\ufeff',
    '\u{e0001}',
  ])
    for (const value of [`a${character}b`, Symbol(`a${character}b`)])
      expect(show(value)).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  expect(show('\x9b31m')).toBe('"\\u009b31m"');
  const source = show(() => {
    throw new Error('a function of several lines');
  });
  expect(source).not.toContain('\n');
});

test('a long value is cut, and not within a character', () => {
  expect(show('x'.repeat(78))).toBe(`"${'x'.repeat(78)}"`);
  for (let length = 70; length < 90; length++) {
    const shown = show('x'.repeat(length) + '😀'.repeat(20));
    expect(shown.length).toBeLessThanOrEqual(80);
    expect(isWellFormed(shown), shown).toBe(true);
  }
  expect(show('\x1b'.repeat(5_000_000)).length).toBeLessThanOrEqual(80);
});

test('a path is any text without NUL', () => {
  for (const path of ['/', ' ', 'a', '\n', '..']) expect(requirePath('p', path)).toBe(path);
  for (const value of ['', 'a\0', '\0', undefined, null, 1, ['a'], Buffer.from('a')])
    expect(refused(() => requirePath('config.x', value))).toContain('config.x');
});

test('a relative path is of the present folder, and ".." in it is left to the kernel', () => {
  const here = process.cwd();
  expect(absolutePath('p', '/a/../b//')).toBe('/a/../b//');
  expect(absolutePath('p', 'a')).toBe(`${here}/a`);
  expect(absolutePath('p', './/./a/../b')).toBe(`${here}/a/../b`);
  expect(absolutePath('p', '../a')).toBe(`${here}/../a`);
  expect(absolutePath('p', '.')).toBe(`${here}/.`);
  expect(absolutePath('p', '.hidden')).toBe(`${here}/.hidden`);
});

test('in the root folder a relative path has one slash, and in one that is gone it is refused', async () => {
  const { stdout, stderr } = await runChild(
    `const path = require('node:path');
     const { absolutePath } = require(path.join(path.dirname(LIBRARY), 'system/arguments.js'));
     process.chdir('/');
     console.log(absolutePath('p', 'srv/x'));
     const fs = require('node:fs');
     const gone = fs.mkdtempSync('/tmp/gone-');
     process.chdir(gone);
     fs.rmdirSync(gone);
     try { absolutePath('p', 'x'); } catch ({ code }) { console.log(code); }
     console.log(absolutePath('p', '/x'));`,
  );
  expect(stderr).toBe('');
  expect(stdout.split('\n')).toEqual(['/srv/x', 'INVALID_ARGUMENT', '/x', '']);
});

test('a size is an integer from 0 to 2^53-1', () => {
  for (const size of [0, 1, 2 ** 53 - 1]) expect(requireSizeBytes('s', size)).toBe(size);
  for (const value of [-1, 1.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, '1', 1n, null, undefined, [1]])
    expect(refused(() => requireSizeBytes('s', value))).toContain('s must be a number of bytes');
});

test('a key that is not known is named with those that are, one of a prototype too', () => {
  requireKnownKeys('options', {}, ['a']);
  requireKnownKeys('options', { a: undefined }, ['a']);
  requireKnownKeys('options', Object.create(null), []);
  expect(refused(() => requireKnownKeys('options', { b: undefined }, ['a', 'c']))).toBe(
    'options.b is not an option; the options are a, c',
  );
  expect(refused(() => requireKnownKeys('options', Object.create({ b: 1 }), ['a']))).toContain('options.b');
  expect(refused(() => requireKnownKeys('options', JSON.parse('{"__proto__": 1}'), ['a']))).toContain(
    '__proto__',
  );
  expect(refused(() => requireKnownKeys('options', ['x'], ['a']))).toContain('options.0');
  for (const value of [undefined, null, 'a', 1, () => {}])
    expect(refused(() => requireKnownKeys('options', value, ['a']))).toContain('must be an object');
});

test('options are read once, by name: of a prototype and by getters too, and not what is changed later', () => {
  let reads = 0;
  class Options {
    b = 1;
    get a() {
      return ++reads;
    }
  }
  const given = new Options();
  const options = readOptions('options', given, ['a', 'b']);
  given.b = 2;
  expect([options.a, options.a, options.b]).toEqual([1, 1, 1]);
  expect({ ...readOptions('options', Object.create({ a: 1 }), ['a']) }).toEqual({ a: 1 });
  expect(Object.keys(readOptions('options', { a: undefined, b: false }, ['a', 'b']))).toEqual(['b']);
});

test('what a library has added to Object.prototype is no unknown option', () => {
  const added = { value: 1, enumerable: true, configurable: true, writable: true };
  Object.defineProperty(Object.prototype, 'added', added);
  let options: object;
  let message: string;
  // Expectations may trip over it themselves.
  try {
    options = readOptions('options', { a: 1 }, ['a']);
    message = refused(() => requireKnownKeys('options', JSON.parse('{"added": 1}'), ['a']));
  } finally {
    Reflect.deleteProperty(Object.prototype, 'added');
  }
  expect(options).toEqual({ a: 1 });
  expect(message).toContain('options.added');
});

test('booleans, functions and signals are those, or not given', () => {
  expect([undefined, true, false].map((value) => optionalBoolean('b', value))).toEqual([
    undefined,
    true,
    false,
  ]);
  for (const value of [0, 1, '', 'true', null]) refused(() => optionalBoolean('b', value));
  for (const value of [undefined, () => {}, async () => {}]) optionalFunction('f', value);
  for (const value of [null, {}, 'f']) refused(() => optionalFunction('f', value));
  const { signal } = new AbortController();
  expect(optionalSignal('work', signal)).toBe(signal);
  expect(optionalSignal('work', undefined)).toBeUndefined();
  for (const value of [null, {}, { aborted: false }]) refused(() => optionalSignal('work', value));
  expect(thrown(() => optionalSignal('work', AbortSignal.abort('why')), 'ABORT_ERR').cause).toBe('why');
});

test('a mode has nine bits, and an owner two numbers, neither of which means "as it is"', () => {
  expect([undefined, 0, 0o640, 0o777].map(optionalMode)).toEqual([undefined, 0, 0o640, 0o777]);
  for (const value of [-1, 0o1000, 0o4755, 1.5, '640', null, Number.NaN]) refused(() => optionalMode(value));
  expect(optionalOwner(undefined)).toBeUndefined();
  const owner = { uid: 0, gid: 0xffff_fffe };
  expect(optionalOwner(owner)).toEqual(owner);
  for (const value of [
    null,
    [],
    {},
    { uid: 1 },
    { uid: 1, gid: 0xffff_ffff },
    { uid: -1, gid: 0 },
    { uid: '1', gid: 1 },
  ])
    refused(() => optionalOwner(value));
  expect(refused(() => optionalOwner({ uid: 1, gid: 1, name: 'x' }))).toContain('owner.name');
  expect(refused(() => optionalOwner({ uid: 1.5, gid: 1 }))).toContain('owner.uid');
});

test('a text has a UTF-8 form unless half of a character is missing', () => {
  for (const text of ['', 'a', '😀', '\u{10ffff}', '\0']) expect(isWellFormed(text)).toBe(true);
  for (const text of ['\ud800', '\udc00', '\udc00\ud800', 'a😀\ud83d'])
    expect(isWellFormed(text)).toBe(false);
});
