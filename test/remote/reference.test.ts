// References to artifacts: what is one, and what of it is meant.
import { expect, test } from 'vitest';
import { formatReference, parseReference } from '../../src/remote/reference.js';
import { Transport } from '../../src/remote/transport.js';
import { isSha256Digest } from '../../src/system/sha256.js';
import { Random } from '../fixtures/random.js';
import { thrown } from '../fixtures/rejection.js';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

test('without tag and digest it is the latest; with a digest, that names the bytes', () => {
  expect(parseReference('registry.example/app')).toEqual({
    host: 'registry.example',
    repository: 'app',
    tag: 'latest',
    digest: undefined,
  });
  expect(parseReference(`localhost/a/b/c@${DIGEST}`)).toMatchObject({ tag: undefined, digest: DIGEST });
  expect(parseReference(`[::1]:5000/a:1.0@${DIGEST}`)).toEqual({
    host: '[::1]:5000',
    repository: 'a',
    tag: '1.0',
    digest: DIGEST,
  });
});

test('Docker Hub has several names, and its own images are in library/', () => {
  for (const host of ['docker.io', 'index.docker.io', 'registry-1.docker.io', 'Docker.IO']) {
    expect(parseReference(`${host}/debian:12`)).toMatchObject({
      host: 'docker.io',
      repository: 'library/debian',
    });
    expect(parseReference(`${host}/team/app`)).toMatchObject({ host: 'docker.io', repository: 'team/app' });
  }
});

test('capital letters in a host mean the same host', () => {
  expect(parseReference('LocalHost/a').host).toBe('localhost');
  expect(parseReference('R.Example:5000/a').host).toBe('r.example:5000');
});

test('whatever is made of parts that are allowed is read into those parts, and written again', () => {
  const random = new Random(71);
  const letters = (count: number) =>
    Array.from({ length: count }, () => random.pick([...'abcxyz0189'])).join('');
  for (let i = 0; i < 500; i++) {
    const host = random.pick([
      'localhost',
      'r.example',
      'r.example:1',
      '10.0.0.1:65535',
      '[fe80::1]:80',
      'a.b-c',
    ]);
    const component = () =>
      letters(1 + random.below(5)) + random.pick(['', '.', '_', '__', '-', '---']) + letters(2);
    const repository = Array.from({ length: 1 + random.below(4) }, component).join('/');
    const tag = random.chance(0.5) ? random.pick(['1', '_', 'v1.2-rc_3', 'A'.repeat(128)]) : undefined;
    const digest = random.chance(0.5) ? DIGEST : undefined;
    const text = `${host}/${repository}${tag ? `:${tag}` : ''}${digest ? `@${digest}` : ''}`;
    const reference = parseReference(text);
    expect(reference, text).toEqual({
      host,
      repository,
      tag: tag ?? (digest === undefined ? 'latest' : undefined),
      digest,
    });
    expect(parseReference(formatReference(reference))).toEqual(reference);
  }
});

test.each([
  '',
  'app',
  'app:1',
  'library/app',
  '/app',
  'registry.example',
  'registry.example/',
  'registry.example//app',
  'registry.example/app/',
  'registry.example/App',
  'registry.example/a..b',
  'registry.example/a___b',
  'registry.example/-a',
  'registry.example/../../etc',
  'registry.example/app:',
  'registry.example/app:1:2',
  'registry.example/app:.1',
  `registry.example/app:${'1'.repeat(129)}`,
  'registry.example/app@',
  'registry.example/app@sha256:abc',
  `registry.example/app@${DIGEST.toUpperCase()}`,
  `registry.example/app@${DIGEST}@${DIGEST}`,
  `registry.example/${'a'.repeat(256)}`,
  'https://registry.example/app',
  'user@registry.example/app',
  'registry.example/app\n',
  ' registry.example/app',
  'registry.example/a b',
  'registry.example:/app',
  'registry.example:port/app',
  'registry\u0000.example/app',
  'régistry.example/app',
])('%j is no reference', (text) => {
  thrown(() => parseReference(text), 'REFERENCE_INVALID');
});

test.each([
  'r.example:99999',
  '1.2.3.999',
  '256.1.1.1.1',
  '[:::]',
  '[1::2::3]',
  '0x7f.1.1.1.1:80',
  'r.example:65536',
])('the host %s is none that a URL can have, and is refused before anybody asks it', (host) => {
  thrown(() => parseReference(`${host}/app`), 'REFERENCE_INVALID');
});

test('every host that is taken has a URL', () => {
  const random = new Random(72);
  const transport = new Transport({});
  for (let i = 0; i < 3000; i++) {
    const host = Array.from({ length: 1 + random.below(9) }, () => random.pick([...'a1-.:[]0x9'])).join('');
    let reference: ReturnType<typeof parseReference>;
    try {
      reference = parseReference(`${host}/app`);
    } catch {
      continue;
    }
    expect(() => transport.baseOf(reference.host), host).not.toThrow();
  }
});

test('what is not a string is shown as what it is, and a long one is cut', () => {
  for (const value of [undefined, null, 1, {}, ['registry.example/app']])
    thrown(() => parseReference(value), 'REFERENCE_INVALID');
  expect(
    thrown(() => parseReference('x'.repeat(1_000_000)), 'REFERENCE_INVALID').message.length,
  ).toBeLessThan(300);
  expect([DIGEST, `${DIGEST}\n`, 'sha256:', 1, undefined].map(isSha256Digest)).toEqual([
    true,
    false,
    false,
    false,
    false,
  ]);
});

test.each([
  'https://user:S3CRET@registry.example/app:1',
  'user:S3CRET@registry.example/app:1',
  'user:S3/CRET@registry.example/app',
  `user:S3CRET@registry.example/app@${DIGEST}`,
  'user:S3CRET@sha256:x@registry.example/app',
])('a password is refused, and not shown: %s', (text) => {
  const error = thrown(() => parseReference(text), 'REFERENCE_INVALID');
  expect(error.message).not.toContain('S3');
  expect(error.message).toContain('@registry.example/app');
});
