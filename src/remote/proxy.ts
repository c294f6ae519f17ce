// HTTP(S)_PROXY and NO_PROXY: which proxy serves a URL, and the tunnel through it.

import { request } from 'node:http';
import { isIP, isIPv6, type Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';

type Environment = Readonly<Record<string, string | undefined>>;

/** The proxy for a URL, or undefined for a direct connection. */
export function proxyFor(url: URL, env: Environment = process.env): URL | undefined {
  const name = url.protocol === 'https:' ? 'https_proxy' : 'http_proxy';
  const proxy = env[name] || env[name.toUpperCase()];
  if (!proxy || isExcluded(url, env.no_proxy || env.NO_PROXY || '')) return undefined;
  return new URL(/^[a-z]+:\/\//i.test(proxy) ? proxy : `http://${proxy}`);
}

/** `NO_PROXY` lists hosts, domains (with or without a leading dot), either with a port, or `*`. */
function isExcluded(url: URL, noProxy: string): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return noProxy.split(/[\s,]+/).some((entry) => {
    if (entry === '*') return true;
    const [, named = entry, namedPort] = isIPv6(entry) ? [] : (/^(.*?)(?::(\d+))?$/.exec(entry) ?? []);
    const domain = named.replace(/^\*?\.|^\[|\]$/g, '').toLowerCase();
    if (domain === '' || (namedPort !== undefined && namedPort !== port)) return false;
    return host === domain || host.endsWith(`.${domain}`);
  });
}

export function proxyAuthorization({ username, password }: URL): Record<string, string> {
  if (username === '') return {};
  const login = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { 'proxy-authorization': `Basic ${Buffer.from(login).toString('base64')}` };
}

/** A TLS connection through a `CONNECT` tunnel. The proxy sees the host's name and nothing else. */
export function openTunnel(
  proxy: URL,
  target: URL,
  tls: { readonly ca?: string },
  timeoutMs: number,
): Promise<TLSSocket> {
  const host = target.hostname.replace(/^\[|\]$/g, '');
  const authority = `${target.hostname}:${target.port || 443}`;
  return new Promise((resolve, reject) => {
    const opening = request({
      host: proxy.hostname,
      port: proxy.port || 80,
      method: 'CONNECT',
      path: authority,
      headers: { host: authority, ...proxyAuthorization(proxy) },
      timeout: timeoutMs,
      agent: false,
    });
    opening.on('timeout', () => opening.destroy(new Error(`proxy ${proxy.host} does not answer`)));
    opening.on('error', reject);
    opening.on('connect', ({ statusCode }, socket: Socket) => {
      if (statusCode === 200) {
        resolve(connect({ socket, ...(isIP(host) ? {} : { servername: host }), host, ...tls }));
        return;
      }
      socket.destroy();
      reject(new Error(`proxy ${proxy.host} refuses the connection with status ${statusCode}`));
    });
    opening.end();
  });
}
