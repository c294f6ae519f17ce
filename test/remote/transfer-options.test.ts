// The options of pushes, pulls and looks at references: what is taken, what is refused, and in which words.
import { expect, test } from 'vitest';
import * as transfer from '../../src/remote/transfer-options.js';
import { thrown } from '../fixtures/rejection.js';

const REFERENCE = 'registry.example/team/web:1';
const SHA256 = 'ab'.repeat(32);

// As JavaScript calls it.
const parsers = {
  push: (options: unknown) => transfer.parsePushOptions('web', REFERENCE, options as transfer.PushOptions),
  pull: (options: unknown) => transfer.parsePullOptions(REFERENCE, options as transfer.PullOptions),
  inspect: (options: unknown) => transfer.parseInspectOptions(REFERENCE, options as transfer.InspectOptions),
};
type Call = keyof typeof parsers;
const ALL = Object.keys(parsers) as Call[];

const BOTH: readonly Call[] = ['push', 'pull'];

type Wrong = readonly [option: string, calls: readonly Call[], must: string, values: readonly unknown[]];
const WRONG: readonly Wrong[] = [
  ['concurrency', BOTH, 'an integer from 1 to 64, got', [0, -1, 65, 1.5, NaN, Infinity, '8', null]],
  ['onProgress', BOTH, 'a function, got', [null, 'log', {}, true]],
  ['signal', ALL, 'an AbortSignal, got', [null, {}, new AbortController(), 'x']],
  ['level', ['push'], 'an integer from 1 to 22, as zstd has them, got', [0, 23, 3.5, NaN, '3', null]],
  ['replace', ['pull'], 'true or false, got', [null, 0, 1, 'true', {}]],
  ['verify', ['pull'], 'a function, got', [null, 'cosign', {}, Promise.resolve()]],
  ['expectedSha256', ['pull'], '64 hex digits, got', [null, '', `sha256:${SHA256}`, 1, [SHA256]]],
  ['platform', ['pull', 'inspect'], 'like linux/arm64 or linux/arm/v7, got', [null, '', 'a', 'a//b', 1]],
  ['limits', ['pull'], 'an object, got', [null, 1, 'maxBytes']],
];

test.each(WRONG)(
  'a wrong %s is refused by name, with what it must be and what it was',
  (option, calls, must, values) => {
    for (const call of calls)
      for (const value of values) {
        const { message } = thrown(() => parsers[call]({ [option]: value }), 'INVALID_ARGUMENT');
        expect(message).toContain(`${option} must be ${must} `);
        expect(message).not.toMatch(/got (?:undefined|)$/);
      }
  },
);

test('an option that a call does not have is refused, and those that it has are listed', () => {
  const others: readonly [Call, string, string][] = [
    ['push', 'replace', 'concurrency, signal, onProgress, base, level'],
    ['pull', 'level', 'name, replace, expectedSha256, platform, limits, verify'],
    ['inspect', 'concurrency', 'platform, signal'],
    ['inspect', 'Platform', 'platform, signal'],
  ];
  for (const [call, option, listed] of others) {
    const { message } = thrown(() => parsers[call]({ [option]: undefined }), 'INVALID_ARGUMENT');
    expect(message).toContain(`options.${option} is not an option`);
    expect(message).toContain(listed);
  }
  for (const call of ALL)
    for (const options of [null, 'x', 1]) thrown(() => parsers[call](options), 'INVALID_ARGUMENT');
});

test('limits of a pull are two, each a whole number above 0', () => {
  expect(parsers.pull({ limits: { maxBytes: 1, maxWindowBytes: 2 ** 53 - 1 } }).limits).toEqual({
    maxBytes: 1,
    maxWindowBytes: 2 ** 53 - 1,
  });
  for (const value of [0, -1, 1.5, 2 ** 53, NaN, '1', null]) {
    const { message } = thrown(() => parsers.pull({ limits: { maxBytes: value } }), 'INVALID_ARGUMENT');
    expect(message).toContain('limits.maxBytes must be a whole number above 0, got');
  }
  const { message } = thrown(() => parsers.pull({ limits: { maxFiles: 1 } }), 'INVALID_ARGUMENT');
  expect(message).toContain('limits.maxFiles is not an option; the options are maxBytes, maxWindowBytes');
});

test('what is not given has its default, and undefined is not given', () => {
  expect(parsers.push({ base: undefined, level: undefined })).toMatchObject({
    base: undefined,
    level: 3,
    options: {},
  });
  expect(parsers.pull({ name: undefined, replace: undefined, limits: undefined })).toMatchObject({
    name: 'web',
    replace: false,
    expectedSha256: undefined,
    limits: {},
    options: {},
  });
  expect(parsers.pull({ name: 'other', expectedSha256: SHA256.toUpperCase() })).toMatchObject({
    name: 'other',
    expectedSha256: SHA256,
  });
  for (const concurrency of [1, 64]) expect(parsers.push({ concurrency }).options).toEqual({ concurrency });
  for (const level of [1, 22]) expect(parsers.push({ level }).level).toBe(level);
});

test('a push goes to a tag, and its base lies in the same registry', () => {
  const push = (text: string, base?: string) => () =>
    transfer.parsePushOptions('web', text, base ? { base } : {});
  for (const text of [`registry.example/a@sha256:${SHA256}`, `registry.example/a:1@sha256:${SHA256}`])
    expect(thrown(push(text), 'REFERENCE_INVALID').message).toContain('give HOST/NAME:TAG');
  expect(push('registry.example/a')().reference.tag).toBe('latest');
  expect(thrown(push(REFERENCE, 'other.example/a:1'), 'REFERENCE_INVALID').message).toContain(
    'base other.example/a:1 must be in the same registry, registry.example',
  );
  thrown(push(REFERENCE, 'registry.example:5000/a:1'), 'REFERENCE_INVALID');
  for (const base of [`registry.example/b@sha256:${SHA256}`, 'REGISTRY.example/b'])
    expect(push(REFERENCE, base)().base?.host).toBe('registry.example');
  for (const base of ['', null, 1, 'no-host']) thrown(() => parsers.push({ base }), 'REFERENCE_INVALID');
});

test('a signal that was aborted before ends the call at once, by what it was to do', () => {
  const signal = AbortSignal.abort();
  const what = { push: 'pushing web to', pull: 'pulling', inspect: 'inspecting' };
  for (const call of ALL)
    expect(thrown(() => parsers[call]({ signal }), 'ABORT_ERR').message).toContain(
      `${what[call]} ${REFERENCE}`,
    );
});
