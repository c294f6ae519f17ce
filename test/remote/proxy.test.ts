// Proxies from the environment: which one serves a URL is in transport.test.ts; here is what their values may be.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { openTunnel, proxyAuthorization, proxyFor } from '../../src/remote/proxy.js';
import { rejection, thrown } from '../fixtures/rejection.js';

const URL_OF = new URL('https://registry.example/v2/');

test('small letters go before capital ones, and an empty value is none', () => {
  const by = (env: Record<string, string>) => proxyFor(URL_OF, env)?.href;
  expect(by({ https_proxy: 'http://small:1', HTTPS_PROXY: 'http://capital:2' })).toBe('http://small:1/');
  expect(by({ https_proxy: '', HTTPS_PROXY: 'http://capital:2' })).toBe('http://capital:2/');
  expect(by({ https_proxy: '' })).toBeUndefined();
  expect(by({ http_proxy: 'http://plain:1', all_proxy: 'http://all:1' })).toBeUndefined();
  expect(by({ https_proxy: 'proxy.example:3128' })).toBe('http://proxy.example:3128/');
  expect(by({ https_proxy: '[::1]:3128' })).toBe('http://[::1]:3128/');
  expect(by({ https_proxy: 'HTTP://u:p@proxy.example' })).toBe('http://u:p@proxy.example/');
});

test.each([
  'https://user:secret@proxy.example',
  'socks5://user:secret@proxy.example:1080',
  'socks5h://proxy.example',
  'ftp://proxy.example',
  'http://',
  'http://user:secret@:99999',
  'http://[::',
  'user:secret@proxy.example:port',
])('the proxy %s is refused by the name of its variable, without its password', (proxy) => {
  const { message } = thrown(() => proxyFor(URL_OF, { https_proxy: proxy }), 'REGISTRY_FAILED');
  expect(message).toContain('https_proxy');
  expect(message).not.toContain('secret');
  // Where no proxy is used, none is looked at.
  expect(proxyFor(URL_OF, { https_proxy: proxy, no_proxy: '*' })).toBeUndefined();
});

test.each([
  ['registry.example', true],
  ['REGISTRY.EXAMPLE', true],
  ['*.example', true],
  ['*example', false],
  ['registry', false],
  ['ry.example', false],
  ['a,registry.example', true],
  ['a registry.example\tb', true],
  ['registry.example:80', false],
  ['.', false],
  [',', false],
  ['**', false],
])('NO_PROXY=%s excludes the registry: %s', (noProxy, excluded) => {
  const proxy = proxyFor(URL_OF, { https_proxy: 'http://proxy:1', no_proxy: noProxy });
  expect(proxy === undefined).toBe(excluded);
});

test.each([
  ['10.0.0.0/8', 'http://10.1.2.3:5000/', true],
  ['10.0.0.0/8', 'http://11.1.2.3:5000/', false],
  ['fd00::/8', 'http://[fd00::1]:5000/', true],
  ['10.0.0.0/33,10.0.0/8,/8', 'http://10.1.2.3/', false],
  ['10.0.0.0/8', 'http://registry.example/', false],
])('NO_PROXY=%s excludes %s: %s', (noProxy, url, excluded) => {
  const proxy = proxyFor(new URL(url), { http_proxy: 'http://proxy:1', no_proxy: noProxy });
  expect(proxy === undefined).toBe(excluded);
});

test('NO_PROXY knows addresses of IPv6 with and without a port', () => {
  const by = (noProxy: string) =>
    proxyFor(new URL('https://[fd00::1]:5000/'), { https_proxy: 'http://proxy:1', no_proxy: noProxy }) ===
    undefined;
  expect([by('fd00::1'), by('[fd00::1]'), by('[fd00::1]:5000'), by('[fd00::1]:443'), by('fd00::2')]).toEqual([
    true,
    true,
    true,
    false,
    false,
  ]);
});

test.each([
  ['http://proxy', undefined],
  ['http://user@proxy', 'user:'],
  ['http://user:p%40ss@proxy', 'user:p@ss'],
  ['http://user:50%off@proxy', 'user:50%off'],
  ['http://user:%ff%zz%@proxy', 'user:\ufffd%zz%'],
  ['http://%C3%BC:%E2%82%AC@proxy', 'ü:€'],
])('the login of %s is %s', (proxy, login) => {
  const expected =
    login === undefined ? {} : { 'proxy-authorization': `Basic ${Buffer.from(login).toString('base64')}` };
  expect(proxyAuthorization(new URL(proxy))).toEqual(expected);
});

test.each(['127.0.0.1', '::1'])(
  'a tunnel is asked for at a proxy on %s, and that it wants a login is final',
  async (host) => {
    const asked: (string | undefined)[] = [];
    const server = createServer();
    server.on('connect', (request, socket) => {
      asked.push(request.url, request.headers['proxy-authorization']);
      socket.end('HTTP/1.1 407 Who are you\r\n\r\n');
    });
    const listening = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(0, host, () => resolve(true));
    });
    // Some containers have no IPv6.
    if (!listening) return;
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const proxy = new URL(`http://user:p@${host === '::1' ? '[::1]' : host}:${port}`);
    const { message } = await rejection(openTunnel(proxy, URL_OF, {}, 5000), 'REGISTRY_FAILED');
    expect(message).toMatch(/refuses the connection with status 407: .*USER:PASSWORD/);
    expect(asked).toEqual(['registry.example:443', `Basic ${Buffer.from('user:p').toString('base64')}`]);
  },
);

test('a proxy that says nothing is given up', async () => {
  const server = createServer();
  server.on('connect', (_, socket) => socket.on('error', () => {}));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const proxy = new URL(`http://127.0.0.1:${port}`);
  await expect(openTunnel(proxy, URL_OF, {}, 100)).rejects.toThrow('does not answer');
});
