// HTTP requests, and the redirects that answer them. Certificates are always checked. Proxies come from the
// environment.

import * as http from 'node:http';
import * as https from 'node:https';
import { pipeline, Writable } from 'node:stream';
import { readCertificates } from '../system/certificates.js';
import type { RegistrySettings } from '../system/config.js';
import { abortError, RootfsError } from '../system/errors.js';
import { onAbort } from '../system/on-abort.js';
import type { Task } from '../system/task.js';
import { address, connectionFailed, failed } from './connection-errors.js';
import { ATTEMPT_MS, openTunnel, proxyAuthorization, proxyFor, withoutBrackets } from './proxy.js';
import { publicLookup, requirePublicHost } from './public-addresses.js';

/** What is sent. Pieces can be sent once only, and each may be overwritten when the next is asked for. */
export type Body = string | Buffer | AsyncIterable<Buffer>;

export interface HttpRequest {
  readonly url: URL;
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT';
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent to the scheme, host and port of `url` only. */
  readonly authorization?: string | undefined;
  readonly body?: Body;
  readonly followRedirects?: boolean;
  /** Minutes may pass before the response: the registry checks what it got, or a cache fetches all of it first. */
  readonly slowResponse?: boolean;
  /** Connect to no address of this host or of a private network. */
  readonly publicOnly?: boolean;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: http.IncomingMessage;
  /** Of the body. Rejects if they come too slowly. */
  readonly parts: AsyncIterable<Buffer>;
  readonly url: URL;
  /** The header of the request. */
  readonly authorization: string | undefined;
}

export const REDIRECT_LIMIT = 5;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** For a connection, for the head of a response, and between two bytes of its body. */
const SILENCE_MS = 30_000;
/** For the head of a response, if it may be slow or comes by the byte, and for so much of its body. */
const SLOW_RESPONSE_MS = 180_000;
const PROGRESS_BYTES = 64 * 1024;
const CONNECTIONS = 32;
/** More than this is not read only to use a connection again: a new one costs less. */
export const DISCARD_LIMIT = 64 * 1024;

export class Transport {
  readonly settings: RegistrySettings;
  readonly #silenceMs: number;
  readonly #slowResponseMs: number;
  readonly #agents = new Map<string, Promise<http.Agent>>();
  /** Files with certificates, by the origin of the request: a URL has no port 443 and no capital letters. */
  readonly #ca = new Map<string, string>();

  constructor(settings: RegistrySettings, silenceMs = SILENCE_MS, slowResponseMs = SLOW_RESPONSE_MS) {
    this.settings = settings;
    this.#silenceMs = silenceMs;
    this.#slowResponseMs = slowResponseMs;
    for (const [host, { ca }] of Object.entries(settings))
      if (ca !== undefined) this.#ca.set(new URL(`https://${addressOf(host)}`).origin, ca);
  }

  /** The scheme and address by which a host is reached. */
  baseOf(host: string, scheme: 'http' | 'https' = this.isInsecure(host) ? 'http' : 'https'): URL {
    return new URL(`${scheme}://${addressOf(host)}`);
  }

  isInsecure(host: string): boolean {
    return this.settings[host]?.insecure === true;
  }

  /** Rejects with {@link Transient} if nobody answered, `REGISTRY_FAILED` for a refused redirect, `ABORT_ERR`. */
  async send(task: Task, request: HttpRequest): Promise<HttpResponse> {
    let { url, method, authorization } = request;
    for (let redirects = 0; ; redirects++) {
      const response = await this.#sendOnce(task, { ...request, url, method, authorization });
      const { location } = response.headers;
      const isRead = method === 'GET' || method === 'HEAD';
      const canRepeat = isRead || ([307, 308].includes(response.status) && !isInPieces(request.body));
      if (!REDIRECTS.has(response.status) || location === undefined || !canRepeat) return response;
      await discard(response);
      if (request.followRedirects === false)
        throw failed(url, 'it redirects, and redirects are not followed here');
      if (redirects === REDIRECT_LIMIT) throw failed(url, `it redirects more than ${REDIRECT_LIMIT} times`);
      const next = locationOf(location, url);
      this.requireAllowed(next, url);
      // Storage behind the registry recognises the request by its URL. The login is for the registry only.
      if (next.origin !== url.origin) authorization = undefined;
      if (response.status === 303) method = 'GET';
      url = next;
    }
  }

  async close(): Promise<void> {
    for (const agent of this.#agents.values()) (await agent.catch(() => undefined))?.destroy();
    this.#agents.clear();
  }

  /** Checks where a registry redirects a request to. Throws `REGISTRY_FAILED`. */
  requireAllowed(next: URL, from: URL): void {
    const plain = next.protocol === 'http:' && (this.isInsecure(next.host) || next.origin === from.origin);
    if (next.protocol === 'https:' || plain) return;
    throw failed(from, `it redirects to ${next.protocol}//${next.host}, which is not https`);
  }

  async #sendOnce(task: Task, request: HttpRequest): Promise<HttpResponse> {
    const { url, authorization, body } = request;
    task.checkAborted();
    const proxy = proxyFor(url);
    const headers = {
      'accept-encoding': 'identity',
      'user-agent': 'microvm-rootfs',
      ...(typeof body === 'string' ? { 'content-length': `${Buffer.byteLength(body)}` } : {}),
      ...(Buffer.isBuffer(body) ? { 'content-length': `${body.length}` } : {}),
      ...request.headers,
      ...(authorization === undefined ? {} : { authorization }),
    };
    const options: https.RequestOptions = {
      method: request.method,
      headers,
      agent: await this.#agentFor(request, proxy),
      ...(request.publicOnly ? { lookup: publicLookup as never } : {}),
    };
    try {
      if (request.publicOnly && proxy !== undefined) await requirePublicHost(url);
      task.checkAborted();
      const incoming = await this.#exchange(task, proxy, options, request);
      const plain = Object.entries(incoming.headers).map(
        ([name, value]) => [name, Array.isArray(value) ? value[0] : value] as const,
      );
      const status = incoming.statusCode ?? 0;
      const parts = steadily(incoming, this.#slowResponseMs);
      return { status, headers: Object.fromEntries(plain), body: incoming, parts, url, authorization };
    } catch (error) {
      if (task.signal?.aborted) throw abortError(task.what, task.signal);
      throw connectionFailed(url, error);
    }
  }

  #exchange(
    task: Task,
    proxy: URL | undefined,
    options: https.RequestOptions,
    request: HttpRequest,
  ): Promise<http.IncomingMessage> {
    const { url, body, slowResponse } = request;
    return new Promise((resolve, reject) => {
      const outgoing =
        url.protocol === 'https:' ? https.request(url, options) : plainRequest(url, proxy, options);
      let incoming: http.IncomingMessage | undefined;
      // Until the response has been read.
      outgoing.on(
        'close',
        onAbort(task.signal, () => outgoing.destroy(abortError(task.what, task.signal as AbortSignal))),
      );
      let silenceMs = 0;
      const wait = (ms: number) => {
        silenceMs = ms;
        outgoing.setTimeout(ms);
      };
      wait(this.#silenceMs);
      outgoing.on('timeout', () =>
        (incoming ?? outgoing).destroy(new Error(`no byte came for ${silenceMs / 1000} s`)),
      );
      outgoing.on('finish', () => slowResponse && incoming === undefined && wait(this.#slowResponseMs));
      // A byte or an interim response (1xx) now and then is no silence, but the head would never end.
      let ending: NodeJS.Timeout | undefined;
      outgoing.on(body === undefined ? 'socket' : 'finish', () => {
        if (incoming !== undefined) return;
        const error = new Error(`no whole head of a response came in ${this.#slowResponseMs / 1000} s`);
        ending = setTimeout(() => outgoing.destroy(error), this.#slowResponseMs);
      });
      outgoing.on('close', () => clearTimeout(ending));
      outgoing.on('error', (error: NodeJS.ErrnoException) => {
        // The registry closed a connection that lay idle just as it was used again. That is no failed try.
        const wasIdle = outgoing.reusedSocket && error.code === 'ECONNRESET' && incoming === undefined;
        if (wasIdle && !isInPieces(body)) resolve(this.#exchange(task, proxy, options, request));
        else reject(error);
      });
      outgoing.on('response', (message) => {
        incoming = message;
        clearTimeout(ending);
        wait(this.#silenceMs);
        // Whoever reads the body gets the error. Without a listener it would end the process.
        message.on('error', () => {});
        resolve(message);
      });
      if (isInPieces(body)) pipeline(body, oneByOne(outgoing), (error) => error && reject(error));
      else outgoing.end(body);
    });
  }

  #agentFor({ url, publicOnly }: HttpRequest, proxy: URL | undefined): Promise<http.Agent> {
    const ca = this.#ca.get(url.origin);
    // An agent uses its connections again, to whatever address they go.
    const addresses = publicOnly ? 'public' : 'any';
    const way = proxy === undefined ? '' : `${proxy.href} ${url.host}`;
    const key = `${url.protocol} ${addresses} ${ca ?? ''} ${way}`;
    let agent = this.#agents.get(key);
    if (agent === undefined) {
      agent = makeAgent(url, proxy, ca, this.#silenceMs);
      agent.catch(() => this.#agents.delete(key));
      this.#agents.set(key, agent);
    }
    return agent;
  }
}

function isInPieces(body: HttpRequest['body']): body is AsyncIterable<Buffer> {
  return body !== undefined && typeof body !== 'string' && !Buffer.isBuffer(body);
}

/** Asks for the next piece when the kernel has the one before. What fails is told by the request itself. */
function oneByOne(request: http.ClientRequest): Writable {
  const sink = new Writable({
    highWaterMark: 1,
    write: (piece, _, done) => void request.write(piece, () => done()),
    final: (done) => void request.end(() => done()),
    destroy: (error, done) => {
      if (error !== null) request.destroy(error);
      done(error);
    },
  });
  request.on('close', () => sink.destroy());
  return sink;
}

function addressOf(host: string): string {
  return host === 'docker.io' ? 'registry-1.docker.io' : host;
}

/** A proxy for plain HTTP takes the whole URL as the path. */
function plainRequest(url: URL, proxy: URL | undefined, options: http.RequestOptions): http.ClientRequest {
  if (proxy === undefined) return http.request(url, options);
  const headers = {
    ...(options.headers as Record<string, string>),
    host: url.host,
    ...proxyAuthorization(proxy),
  };
  // Not the proxy's URL: Node would send its user and password as `Authorization`, which proxies pass on.
  const address = { host: withoutBrackets(proxy.hostname), port: proxy.port || 80 };
  return http.request({ ...options, ...address, path: url.href, headers });
}

async function makeAgent(
  url: URL,
  proxy: URL | undefined,
  caFile: string | undefined,
  timeoutMs: number,
): Promise<http.Agent> {
  const pool = { keepAlive: true, maxSockets: CONNECTIONS, autoSelectFamilyAttemptTimeout: ATTEMPT_MS };
  // Some proxies for plain HTTP close each connection without saying so.
  if (url.protocol !== 'https:') return new http.Agent({ ...pool, keepAlive: proxy === undefined });
  const tls = caFile === undefined ? {} : { ca: await readCertificates(caFile) };
  // Whatever NODE_TLS_REJECT_UNAUTHORIZED says.
  const agent = new https.Agent({ ...pool, ...tls, rejectUnauthorized: true });
  if (proxy !== undefined) {
    const opened = (_: unknown, done: (error: unknown, socket?: unknown) => void) => {
      openTunnel(proxy, url, tls, timeoutMs).then((socket) => done(null, socket), done);
    };
    // Node takes the socket from the callback. Its types lack this method.
    (agent as unknown as { createConnection: typeof opened }).createConnection = opened;
  }
  return agent;
}

/** Where a registry sends a request on to. */
export function locationOf(location: string, from: URL): URL {
  try {
    return new URL(location, from);
  } catch {
    throw failed(from, 'it redirects to something that is not a URL');
  }
}

/** Reads a short body to its end, so that the connection can be used again. Closes it for a long one. */
export async function discard({ body, parts }: HttpResponse): Promise<void> {
  let length = 0;
  try {
    for await (const part of parts) {
      length += part.length;
      if (length > DISCARD_LIMIT) break;
    }
  } catch {
    // The connection is gone, and nobody needs it.
  }
  body.destroy();
}

/** A body that must be short. Rejects with {@link Transient} if it breaks off. */
export async function readAll({ parts, url }: HttpResponse, limitBytes: number): Promise<Buffer> {
  const read: Buffer[] = [];
  let length = 0;
  try {
    for await (const part of parts) {
      length += part.length;
      if (length > limitBytes) {
        throw new RootfsError(
          'ARTIFACT_INVALID',
          `${address(url)} sends more than ${limitBytes} bytes, more than any document of this kind has`,
        );
      }
      read.push(part);
    }
  } catch (error) {
    throw error instanceof RootfsError ? error : connectionFailed(url, error);
  }
  return Buffer.concat(read);
}

/** A byte now and then is no silence, but would never end. How long the reader takes does not count. */
async function* steadily(
  body: AsyncIterable<Buffer>,
  slowMs: number,
): AsyncGenerator<Buffer, void, undefined> {
  let bytes = 0;
  let waitedMs = 0;
  let askedMs = performance.now();
  for await (const part of body) {
    waitedMs += performance.now() - askedMs;
    bytes += part.length;
    if (bytes >= PROGRESS_BYTES) bytes = waitedMs = 0;
    else if (waitedMs > slowMs) throw new Error(`only ${bytes} bytes came in ${slowMs / 1000} s`);
    yield part;
    askedMs = performance.now();
  }
}
