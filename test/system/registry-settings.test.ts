// The settings of registries: by hosts that can be reached, and refused by the name of what is wrong.
import { expect, test } from 'vitest';
import { isRegistryHost, parseRegistrySettings } from '../../src/system/registry-settings.js';
import { thrown } from '../fixtures/rejection.js';

const settings = {
  'registry.example': {
    insecure: false,
    ca: '/ca.pem',
    mirrors: ['mirror.example:5000'],
    realms: ['auth.example'],
  },
  'localhost:5000': { insecure: true },
  '[fd00::1]:5000': {},
};

test('whole settings are taken as they are', () => {
  expect(parseRegistrySettings(settings)).toEqual(settings);
  expect(parseRegistrySettings({})).toEqual({});
});

test('a relative path of a certificate is of the present folder', () => {
  expect(parseRegistrySettings({ 'r.example': { ca: './ca.pem' } })).toEqual({
    'r.example': { ca: `${process.cwd()}/ca.pem` },
  });
});

test('a host is found by whatever name it has', () => {
  const given = {
    'Registry-1.Docker.IO': { mirrors: ['Index.docker.io', 'Mirror.example'] },
    'R.example:5000': { realms: ['Auth.example'] },
  };
  expect(parseRegistrySettings(given)).toEqual({
    'docker.io': { mirrors: ['docker.io', 'mirror.example'] },
    'r.example:5000': { realms: ['auth.example'] },
  });
});

test('what the caller changes later does not count, and nobody can change what was taken', () => {
  const given = structuredClone(settings);
  const taken = parseRegistrySettings(given);
  given['localhost:5000'].insecure = false;
  given['registry.example'].mirrors.push('other.example');
  expect(taken).toEqual(settings);
  const { mirrors } = taken['registry.example'] ?? {};
  for (const part of [taken, taken['registry.example'], mirrors]) expect(Object.isFrozen(part)).toBe(true);
});

test.each<[unknown, string]>([
  [null, 'must be an object'],
  [[], 'must be an object'],
  ['registry.example', 'must be an object'],
  [{ 'https://registry.example': {} }, 'https://registry.example'],
  [{ 'registry.example/team': {} }, 'registry.example/team'],
  [{ '': {} }, 'the key ""'],
  [{ 'r.example': {}, 'R.example': {} }, 'the key "R.example", and another that means r.example'],
  [{ 'docker.io': {}, 'index.docker.io': {} }, 'another that means docker.io'],
  [{ 'r.example': null }, 'config.registries["r.example"]'],
  [{ 'r.example': true }, 'config.registries["r.example"]'],
  [{ 'r.example': { unsafe: true } }, 'config.registries["r.example"].unsafe'],
  [{ 'r.example': { insecure: 'yes' } }, 'config.registries["r.example"].insecure'],
  [{ 'r.example': { ca: '' } }, 'config.registries["r.example"].ca'],
  [{ 'r.example': { ca: '/a\0b' } }, 'config.registries["r.example"].ca'],
  [{ 'r.example': { mirrors: 'm.example' } }, 'config.registries["r.example"].mirrors'],
  [{ 'r.example': { mirrors: ['m.example/x'] } }, 'config.registries["r.example"].mirrors'],
  [{ 'r.example': { mirrors: null } }, 'config.registries["r.example"].mirrors'],
  [{ 'r.example': { realms: ['https://a.example'] } }, 'config.registries["r.example"].realms'],
  [{ 'r.example': { realms: [1] } }, 'config.registries["r.example"].realms'],
])('%j is refused', (value, words) => {
  expect(thrown(() => parseRegistrySettings(value), 'INVALID_ARGUMENT').message).toContain(words);
});

test.each([
  ['localhost', true],
  ['a-b.example', true],
  ['r.example:1', true],
  ['10.0.0.1:65535', true],
  ['[::1]', true],
  ['[::ffff:1.2.3.4]', false],
  ['r.example:65536', false],
  ['r.example:', false],
  ['r.example:80:80', false],
  ['::1', false],
  ['[::1', false],
  ['[:]', false],
  ['1.2.3.999', false],
  ['r.example\n', false],
  ['r example', false],
  ['user@r.example', false],
  ['r.example?x', false],
  ['%72.example', false],
  ['', false],
  [undefined, false],
  [['r.example'], false],
])('%j is a host: %s', (value, valid) => {
  expect(isRegistryHost(value)).toBe(valid);
});
