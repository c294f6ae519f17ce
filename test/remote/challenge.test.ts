// What a registry asks for when it wants a login.
import { expect, test } from 'vitest';
import { joinScopes, parseChallenge } from '../../src/remote/challenge.js';

const bearer = (parameters: Record<string, string>) => ({ scheme: 'bearer', parameters });
const basic = (parameters: Record<string, string>) => ({ scheme: 'basic', parameters });

test.each([
  ['Basic realm="here"', basic({ realm: 'here' })],
  ['BASIC', basic({})],
  [
    'Bearer realm="https://a/token",service="a",scope="repository:x:pull,push"',
    bearer({ realm: 'https://a/token', service: 'a', scope: 'repository:x:pull,push' }),
  ],
  ['bearer Realm=https://a/t, service=a b', bearer({ realm: 'https://a/t', service: 'a' })],
  // Gitea and Forgejo offer both.
  ['Bearer realm="https://g/v2/token", Basic realm="Gitea"', bearer({ realm: 'https://g/v2/token' })],
  ['Basic realm="Gitea", Bearer realm="https://g/v2/token"', bearer({ realm: 'https://g/v2/token' })],
  ['Bearer realm="no address", Basic realm="here"', basic({ realm: 'here' })],
  ['Negotiate, Basic realm="here"', basic({ realm: 'here' })],
  ['Basic realm="a, Bearer realm=\\"b\\""', basic({ realm: 'a, Bearer realm="b"' })],
  // Of two values, programs take different ones.
  ['Bearer realm="https://a/t",Realm="http://b"', bearer({ realm: '' })],
  ['Bearer service="a"', bearer({ service: 'a' })],
  ['Negotiate', undefined],
  ['realm="here"', undefined],
  ['', undefined],
  [undefined, undefined],
])('%s', (header, challenge) => {
  expect(parseChallenge(header)).toEqual(challenge);
});

test.each([
  ['', ['repository:a:pull'], 'repository:a:pull'],
  ['repository:a:pull', ['repository:a:pull,push'], 'repository:a:pull,push'],
  [
    'repository:a:pull',
    ['repository:a:push', 'repository:b:pull'],
    'repository:a:pull,push repository:b:pull',
  ],
  ['repository:h:5/a:pull  aws', ['repository:a:pull'], 'repository:h:5/a:pull aws repository:a:pull'],
])('asked for %j, and for %j of ours, a token is for %j', (asked, own, expected) => {
  expect(joinScopes(asked, own).join(' ')).toBe(expected);
});
