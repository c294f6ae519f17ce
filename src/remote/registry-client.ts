// The registry API (OCI distribution 1.1) for one host and one repository: manifests, blobs, uploads.

import { hasCode, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { Authorization } from './authorization.js';
import { address, failed } from './connection-errors.js';
import { adviceFor, wordsOf } from './refusal.js';
import { isBusy, retryAfterMs, Transient, withRetries } from './retry.js';
import {
  type Body,
  DISCARD_LIMIT,
  discard,
  type HttpRequest,
  type HttpResponse,
  locationOf,
  REDIRECT_LIMIT,
  readAll,
  type Transport,
} from './transport.js';

export interface Manifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

/** A blob's bytes from `start` on. */
export interface BlobStream {
  /** 0 if the registry sends the whole blob instead of the range. */
  readonly start: number;
  readonly body: AsyncIterable<Buffer>;
  readonly close: () => void;
}

/** `damaged`: it has another length. `absent` is also what cannot be told. */
type BlobState = 'there' | 'damaged' | 'absent';

const OCI_MANIFEST_BYTES_LIMIT = 4 * 1024 * 1024;

const ACCEPTED = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
].join(', ');

export class RegistryClient {
  readonly host: string;
  readonly repository: string;
  readonly isMirror: boolean;
  /** Set on a mirror that does not answer. This transfer then asks it no more. */
  isDown = false;
  readonly #transport: Transport;
  readonly #authorization: Authorization;
  readonly #base: URL;
  /** URLs of uploads that were begun and are not used. */
  readonly #begun: URL[] = [];
  /** Whether a login at the base of the registry worked, which was not asked for elsewhere. */
  #loggingIn: Promise<boolean> | undefined;
  /** Called after each 429 and 503. */
  onBusy: (() => void) | undefined;

  constructor(
    transport: Transport,
    host: string,
    repository: string,
    actions: 'pull' | 'pull,push',
    isMirror = false,
  ) {
    this.host = host;
    this.isMirror = isMirror;
    this.repository = repository;
    this.#transport = transport;
    this.#authorization = new Authorization(transport, host, repository, actions);
    this.#base = transport.baseOf(host);
  }

  /** A client of another repository of the same registry, to read from. */
  forRepository(repository: string): RegistryClient {
    return new RegistryClient(this.#transport, this.host, repository, 'pull');
  }

  /** To be called before {@link mount}: a token gives the rights that it was asked with. */
  willMountFrom(repository: string): void {
    this.#authorization.alsoPull(repository);
  }

  /** Undefined if there is none with that tag or digest. */
  manifest(task: Task, reference: string): Promise<Manifest | undefined> {
    return this.#withRetries(task, async () => {
      const url = this.#url(`manifests/${reference}`);
      const response = await this.#send(task, { url, method: 'GET', headers: { accept: ACCEPTED } });
      if (response.status === 404) return discard(response);
      await this.#expect(response, [200]);
      const bytes = await readAll(response, OCI_MANIFEST_BYTES_LIMIT);
      return { bytes, mediaType: (response.headers['content-type'] ?? '').split(';')[0]?.trim() ?? '' };
    }) as Promise<Manifest | undefined>;
  }

  putManifest(task: Task, reference: string, { bytes, mediaType }: Manifest): Promise<void> {
    return this.#withRetries(task, async () => {
      const url = this.#url(`manifests/${reference}`);
      const headers = { 'content-type': mediaType };
      const response = await this.#send(task, {
        url,
        method: 'PUT',
        headers,
        body: bytes,
        slowResponse: true,
      });
      await this.#expect(response, [200, 201, 202, 204]);
      await discard(response);
    });
  }

  /**
   * `there` if the registry sends its last byte. A HEAD is answered from caches that know blobs which are lost or cut
   * off, and some storage takes only a GET. Of a registry that knows no ranges, the length alone is compared.
   */
  stateOf(task: Task, digest: string, sizeBytes: number): Promise<BlobState> {
    return this.#withRetries(task, async () => {
      const last = sizeBytes - 1;
      const headers = { range: `bytes=${last}-${last}` };
      const response = await this.#send(task, { url: this.#url(`blobs/${digest}`), method: 'GET', headers });
      const { status } = response;
      const isRefused = this.#isOwn(response.url) && (status === 401 || status === 403);
      if (isRefused || isBusy(status)) await this.#expect(response, []);
      const { 'content-range': range = '', 'content-length': length = '' } = response.headers;
      if (status === 206 && [`${sizeBytes}`, '*'].some((total) => range === `bytes ${last}-${last}/${total}`))
        return (await readAll(response, DISCARD_LIMIT).catch(() => '')).length === 1 ? 'there' : 'absent';
      await discard(response);
      if (status === 200 && length === `${sizeBytes}`) return 'there';
      return status === 416 || (status === 200 && length !== '') ? 'damaged' : 'absent';
    });
  }

  /** One request for the bytes from `start` up to `end` of a blob of `size` bytes. Rejects with {@link Transient}. */
  async openBlob(task: Task, digest: string, start: number, end: number, size: number): Promise<BlobStream> {
    const isWhole = start === 0 && end === size;
    const headers: Record<string, string> = isWhole ? {} : { range: `bytes=${start}-${end - 1}` };
    const request = {
      url: this.#url(`blobs/${digest}`),
      method: 'GET',
      headers,
      slowResponse: true,
    } as const;
    const response = await this.#send(task, request);
    const { status, body, parts, url } = response;
    const close = () => void body.destroy();
    const { 'content-encoding': encoding = '' } = response.headers;
    if (!['', 'identity'].includes(encoding.toLowerCase())) {
      close();
      throw this.#oddResponse(
        url,
        `it sends the blob with the encoding ${encoding}, although none was requested`,
      );
    }
    if (status === 206) {
      const [, from] = /^bytes (\d+)-\d+\/(?:\d+|\*)$/.exec(response.headers['content-range'] ?? '') ?? [];
      if (Number(from) === start) return { start, body: parts, close };
      close();
      throw this.#oddResponse(url, `it was asked for the bytes from ${start} on and sends others`);
    }
    if (status === 416) close();
    const advice = 'the registry has lost a part of the artifact: push it again';
    await this.#expect(response, [200], advice).catch((error) => {
      // The manifest promises the blob, so a refusal may be an error that passes. Behind a mirror there are others.
      const isFinal = error instanceof Transient || this.isMirror;
      throw isFinal ? error : new Transient(error, false, undefined, 2);
    });
    return { start: 0, body: parts, close };
  }

  /** One server of many, or a cache before them, may be at fault. Behind a mirror there are others. */
  #oddResponse(url: URL, why: string): unknown {
    const error = failed(url, why);
    return this.isMirror ? error : new Transient(error, false, undefined, 3);
  }

  /** True if the registry has mounted the blob from another of its repositories. */
  async mount(task: Task, digest: string, from: string): Promise<boolean> {
    const mounting = this.#withRetries(task, async () => {
      const url = this.#url('blobs/uploads/');
      url.searchParams.set('mount', digest);
      url.searchParams.set('from', from);
      const response = await this.#send(task, { url, method: 'POST' });
      await discard(response);
      // The registry has begun an upload instead.
      if (response.status === 202) this.#begun.push(this.#uploadUrl(response));
      return response.status === 201;
    });
    try {
      return await mounting;
    } catch (error) {
      // Without the right to read the other repository the blob is uploaded.
      if (hasCode(error, 'REGISTRY_UNAUTHORIZED')) return false;
      throw error;
    }
  }

  /** `body` is called for each try. */
  upload(task: Task, digest: string, sizeBytes: number, body: () => Body): Promise<void> {
    return this.#withRetries(task, async () => {
      const url = this.#begun.pop() ?? (await this.#beginUpload(task));
      // As text: what else the registry put there stays as it wrote it.
      url.search += `${url.search === '' ? '' : '&'}digest=${encodeURIComponent(digest)}`;
      const headers = { 'content-type': 'application/octet-stream', 'content-length': `${sizeBytes}` };
      const put = (to: URL) =>
        this.#send(task, { url: to, method: 'PUT', headers, body: body(), slowResponse: true }, false);
      let response = await put(url);
      // The transport cannot send a stream again.
      for (let redirects = 0; isMoved(response) && redirects < REDIRECT_LIMIT; redirects++) {
        await discard(response);
        response = await put(this.#uploadUrl(response));
      }
      if ([404, 416].includes(response.status)) {
        const why = 'the upload that was begun is not known there any more';
        throw new Transient(
          failed(url, `status ${response.status}${await wordsOf(response)}: ${why}`),
          false,
        );
      }
      await this.#expect(response, [200, 201, 204]);
      await discard(response);
    });
  }

  async #beginUpload(task: Task): Promise<URL> {
    const response = await this.#send(task, { url: this.#url('blobs/uploads/'), method: 'POST' });
    await this.#expect(response, [202]);
    await discard(response);
    return this.#uploadUrl(response);
  }

  #uploadUrl({ headers: { location }, url }: HttpResponse): URL {
    if (location === undefined) throw failed(url, 'it does not say where to upload to');
    const next = locationOf(location, url);
    this.#transport.requireAllowed(next, url);
    return next;
  }

  #url(path: string): URL {
    return new URL(`/v2/${this.repository}/${path}`, this.#base);
  }

  #withRetries<T>(task: Task, attempt: () => Promise<T>): Promise<T> {
    return withRetries(task, attempt, this);
  }

  /** Logs in if the registry asks for it. After an upload the caller tries again with the new login. */
  async #send(task: Task, request: HttpRequest, canRepeat = true): Promise<HttpResponse> {
    for (let renewals = 0; ; renewals++) {
      const authorization = this.#isOwn(request.url) ? this.#authorization.header : undefined;
      const response = await this.#transport.send(task, { ...request, authorization });
      if (canRepeat && authorization === undefined && (await this.#wasHidden(task, response))) continue;
      // Storage that the registry redirects to has no say in where its login goes.
      if (response.status !== 401 || !this.#isOwn(response.url)) return response;
      await discard(response);
      if (renewals === 2) throw this.#unauthorized(response, 'it accepts none of the stored logins');
      await this.#authorization.logIn(task, response.headers['www-authenticate'], authorization);
      if (!canRepeat) throw new Transient(this.#unauthorized(response, 'its login has expired'), false, 0);
    }
  }

  /** Some registries say to strangers that they have nothing. True if this host is logged in now. */
  async #wasHidden(task: Task, response: HttpResponse): Promise<boolean> {
    if (![403, 404].includes(response.status) || !this.#isOwn(response.url)) return false;
    this.#loggingIn ??= this.#logInUnasked(task).catch(() => false);
    const isLoggedIn = await this.#loggingIn;
    task.checkAborted();
    if (!isLoggedIn) return false;
    await discard(response);
    return true;
  }

  async #logInUnasked(task: Task): Promise<boolean> {
    if (!(await this.#authorization.hasLogin(task))) return false;
    const url = new URL('/v2/', this.#base);
    const response = await this.#transport.send(task, { url, method: 'GET' });
    await discard(response);
    if (response.status !== 401 || !this.#isOwn(response.url)) return false;
    await this.#authorization.logIn(task, response.headers['www-authenticate'], undefined);
    return true;
  }

  #isOwn(url: URL): boolean {
    return url.origin === this.#base.origin;
  }

  /** `advice` is for 404. */
  async #expect(
    response: HttpResponse,
    statuses: readonly number[],
    advice = 'check the reference',
  ): Promise<void> {
    if (statuses.includes(response.status)) return;
    const why = `status ${response.status}${await wordsOf(response)}`;
    // GitHub says 403 as well.
    const isTurnedAway =
      isBusy(response.status) || (response.status === 403 && 'retry-after' in response.headers);
    const isRefused = !isTurnedAway && (response.status === 401 || response.status === 403);
    const advised = adviceFor(response.status, why);
    if (advised !== undefined)
      throw new RootfsError('REGISTRY_FAILED', `${address(response.url)}: ${why}; ${advised}`);
    if (isRefused && this.#isOwn(response.url)) throw this.#unauthorized(response, why);
    if (response.status === 404)
      throw new RootfsError('REGISTRY_NOT_FOUND', `${address(response.url)} is not there: ${why}; ${advice}`);
    if (isTurnedAway) {
      const error = new RootfsError(
        'REGISTRY_BUSY',
        `${address(response.url)} is busy: ${why}; try again later, or with a lower concurrency`,
      );
      throw new Transient(error, true, retryAfterMs(response.headers['retry-after']));
    }
    const error = failed(response.url, why);
    // The registry gives a new address for what storage refuses.
    const isExpired = isRefused || (response.status === 400 && !this.#isOwn(response.url));
    const mayPass = response.status >= 500 || response.status === 408 || isExpired;
    throw mayPass ? new Transient(error, false) : error;
  }

  #unauthorized({ url }: HttpResponse, why: string): RootfsError {
    return new RootfsError(
      'REGISTRY_UNAUTHORIZED',
      `${address(url)}: ${why}; log in with docker, podman, skopeo or oras, or ask for the right to do this` +
        this.#authorization.trouble,
    );
  }
}

function isMoved({ status, headers }: HttpResponse): boolean {
  return (status === 307 || status === 308) && headers.location !== undefined;
}
