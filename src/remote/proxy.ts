// HTTP(S)_PROXY and NO_PROXY: which proxy serves a URL, and the tunnel through it.

import { Agent, request } from 'node:http';
import { BlockList, isIP, isIPv4, isIPv6, type Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { RootfsError } from '../system/errors.js';

/** For each address of a host. Node's 250 ms are too short for a host that is far away. */
export const ATTEMPT_MS = 2500;

type Environment = Readonly<Record<string, string | undefined>>;

/** The proxy for a URL, or undefined for a direct connection. Throws `REGISTRY_FAILED` for one of another scheme. */
export function proxyFor(url: URL, env: Environment = process.env): URL | undefined {
  const name = url.protocol === 'https:' ? 'https_proxy' : 'http_proxy';
  const proxy = env[name] || env[name.toUpperCase()];
  if (!proxy || isExcluded(url, env.no_proxy || env.NO_PROXY || '')) return undefined;
  const address = /^[a-z][a-z0-9+.-]*:\/\//i.test(proxy) ? proxy : `http://${proxy}`;
  // The value may hold a password, so no message shows it.
  if (!URL.canParse(address)) throw unusable(name, 'it is not a URL');
  const parsed = new URL(address);
  // A proxy that is reached by TLS would get its password in plain text.
  if (parsed.protocol !== 'http:')
    throw unusable(name, `${parsed.protocol}// is not supported, only http://`);
  return parsed;
}

/** Final: another try would be refused as well. */
function noProxyLogin(refusal: string): RootfsError {
  return new RootfsError(
    'REGISTRY_FAILED',
    `${refusal}: it wants a login; give it as https_proxy=http://USER:PASSWORD@HOST:PORT`,
  );
}

function unusable(name: string, why: string): RootfsError {
  return new RootfsError('REGISTRY_FAILED', `the proxy in the environment (${name}) cannot be used: ${why}`);
}

/** `NO_PROXY` lists hosts and domains (with or without a leading dot), with or without a port, networks, or `*`. */
function isExcluded(url: URL, noProxy: string): boolean {
  const host = withoutBrackets(url.hostname);
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return noProxy.split(/[\s,]+/).some((entry) => {
    if (entry === '*') return true;
    if (entry.includes('/')) return isWithin(networkOf(entry), host);
    const [, named = entry, namedPort] = isIPv6(entry) ? [] : (/^(.*?)(?::(\d+))?$/.exec(entry) ?? []);
    const domain = named.replace(/^\*?\.|^\[|\]$/g, '').toLowerCase();
    if (domain === '' || (namedPort !== undefined && namedPort !== port)) return false;
    return host === domain || host.endsWith(`.${domain}`);
  });
}

/** Empty for what is not a network. */
function networkOf(entry: string): BlockList {
  const [, address = '', bits] = /^(.*)\/(\d{1,3})$/.exec(entry) ?? [];
  const network = new BlockList();
  if (isIPv4(address) && Number(bits) <= 32) network.addSubnet(address, Number(bits), 'ipv4');
  if (isIPv6(address) && Number(bits) <= 128) network.addSubnet(address, Number(bits), 'ipv6');
  return network;
}

function isWithin(network: BlockList, host: string): boolean {
  return isIP(host) !== 0 && network.check(host, isIPv4(host) ? 'ipv4' : 'ipv6');
}

/** A URL has an IPv6 address in brackets, a connection has none. */
export function withoutBrackets(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '');
}

export function proxyAuthorization({ username, password }: URL): Record<string, string> {
  if (username === '') return {};
  const login = `${decoded(username)}:${decoded(password)}`;
  return { 'proxy-authorization': `Basic ${Buffer.from(login).toString('base64')}` };
}

/** A percent sign that stands for itself is left as it is, as curl does. */
function decoded(text: string): string {
  const bytes = text.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** A TLS connection through a `CONNECT` tunnel. The proxy sees the host's name and nothing else. */
export function openTunnel(
  proxy: URL,
  target: URL,
  tls: { readonly ca?: string },
  timeoutMs: number,
): Promise<TLSSocket> {
  const host = withoutBrackets(target.hostname);
  const authority = `${target.hostname}:${target.port || 443}`;
  return new Promise((resolve, reject) => {
    const opening = request({
      host: withoutBrackets(proxy.hostname),
      port: proxy.port || 80,
      method: 'CONNECT',
      path: authority,
      headers: { host: authority, ...proxyAuthorization(proxy) },
      timeout: timeoutMs,
      agent: new Agent({ autoSelectFamilyAttemptTimeout: ATTEMPT_MS }),
    });
    opening.on('timeout', () => opening.destroy(new Error(`proxy ${proxy.host} does not answer`)));
    opening.on('error', reject);
    opening.on('connect', ({ statusCode }, socket: Socket) => {
      if (statusCode === 200) {
        const name = isIP(host) ? {} : { servername: host };
        resolve(connect({ socket, host, ...name, ...tls, rejectUnauthorized: true }));
        return;
      }
      socket.destroy();
      const refusal = `proxy ${proxy.host} refuses the connection with status ${statusCode}`;
      reject(statusCode === 407 ? noProxyLogin(refusal) : new Error(refusal));
    });
    opening.end();
  });
}
