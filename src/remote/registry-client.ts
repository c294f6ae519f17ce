// The registry API (OCI distribution 1.1) for one host and one repository: manifests, blobs, uploads.

import { hasCode, RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { Authorization } from './authorization.js';
import { address, failed } from './connection-errors.js';
import { adviceFor, wordsOf } from './refusal.js';
import { isBusy, persist, retryAfterMs, Transient } from './retry.js';
import {
  type Answer,
  type Body,
  DISCARD_LIMIT,
  discard,
  locationOf,
  type Question,
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
export type BlobState = 'there' | 'damaged' | 'absent';

export const OCI_MANIFEST_BYTES_LIMIT = 4 * 1024 * 1024;

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

  /** Another repository of the same registry, to read from. */
  of(repository: string): RegistryClient {
    return new RegistryClient(this.#transport, this.host, repository, 'pull');
  }

  /** To be called before {@link mount}: a token gives the rights that it was asked with. */
  willMountFrom(repository: string): void {
    this.#authorization.alsoPull(repository);
  }

  /** Undefined if there is none with that tag or digest. */
  manifest(task: Task, reference: string): Promise<Manifest | undefined> {
    return this.#persist(task, async () => {
      const url = this.#url(`manifests/${reference}`);
      const answer = await this.#ask(task, { url, method: 'GET', headers: { accept: ACCEPTED } });
      if (answer.status === 404) return discard(answer);
      await this.#expect(answer, [200]);
      const bytes = await readAll(answer, OCI_MANIFEST_BYTES_LIMIT);
      return { bytes, mediaType: (answer.headers['content-type'] ?? '').split(';')[0]?.trim() ?? '' };
    }) as Promise<Manifest | undefined>;
  }

  putManifest(task: Task, reference: string, { bytes, mediaType }: Manifest): Promise<void> {
    return this.#persist(task, async () => {
      const url = this.#url(`manifests/${reference}`);
      const headers = { 'content-type': mediaType };
      const answer = await this.#ask(task, { url, method: 'PUT', headers, body: bytes, slowAnswer: true });
      await this.#expect(answer, [200, 201, 202, 204]);
      await discard(answer);
    });
  }

  /**
   * `there` if the registry sends its last byte. A HEAD is answered from caches that know blobs which are lost or cut
   * off, and some storage takes only a GET. Of a registry that knows no ranges, the length alone is compared.
   */
  stateOf(task: Task, digest: string, sizeBytes: number): Promise<BlobState> {
    return this.#persist(task, async () => {
      const last = sizeBytes - 1;
      const headers = { range: `bytes=${last}-${last}` };
      const answer = await this.#ask(task, { url: this.#url(`blobs/${digest}`), method: 'GET', headers });
      const { status } = answer;
      const isRefused = this.#isOwn(answer.url) && (status === 401 || status === 403);
      if (isRefused || isBusy(status)) await this.#expect(answer, []);
      const { 'content-range': range = '', 'content-length': length = '' } = answer.headers;
      if (status === 206 && [`${sizeBytes}`, '*'].some((total) => range === `bytes ${last}-${last}/${total}`))
        return (await readAll(answer, DISCARD_LIMIT).catch(() => '')).length === 1 ? 'there' : 'absent';
      await discard(answer);
      if (status === 200 && length === `${sizeBytes}`) return 'there';
      return status === 416 || (status === 200 && length !== '') ? 'damaged' : 'absent';
    });
  }

  /** One request for the bytes from `start` up to `end` of a blob of `size` bytes. Rejects with {@link Transient}. */
  async openBlob(task: Task, digest: string, start: number, end: number, size: number): Promise<BlobStream> {
    const isWhole = start === 0 && end === size;
    const headers: Record<string, string> = isWhole ? {} : { range: `bytes=${start}-${end - 1}` };
    const question = { url: this.#url(`blobs/${digest}`), method: 'GET', headers, slowAnswer: true } as const;
    const answer = await this.#ask(task, question);
    const { status, body, url } = answer;
    const close = () => void body.destroy();
    const { 'content-encoding': encoding = '' } = answer.headers;
    if (!['', 'identity'].includes(encoding.toLowerCase())) {
      close();
      throw this.#oddAnswer(
        url,
        `it sends the blob with the encoding ${encoding}, although none was requested`,
      );
    }
    if (status === 206) {
      const [, from] = /^bytes (\d+)-\d+\/(?:\d+|\*)$/.exec(answer.headers['content-range'] ?? '') ?? [];
      if (Number(from) === start) return { start, body, close };
      close();
      throw this.#oddAnswer(url, `it was asked for the bytes from ${start} on and sends others`);
    }
    if (status === 416) close();
    const advice = 'the registry has lost a part of the artifact: push it again';
    await this.#expect(answer, [200], advice).catch((error) => {
      // The manifest promises the blob, so a refusal may be an error that passes. Behind a mirror there are others.
      const isFinal = error instanceof Transient || this.isMirror;
      throw isFinal ? error : new Transient(error, false, undefined, 2);
    });
    return { start: 0, body, close };
  }

  /** One server of many, or a cache before them, may be at fault. Behind a mirror there are others. */
  #oddAnswer(url: URL, why: string): unknown {
    const error = failed(url, why);
    return this.isMirror ? error : new Transient(error, false, undefined, 3);
  }

  /** True if the registry has mounted the blob from another of its repositories. */
  async mount(task: Task, digest: string, from: string): Promise<boolean> {
    const mounting = this.#persist(task, async () => {
      const url = this.#url('blobs/uploads/');
      url.searchParams.set('mount', digest);
      url.searchParams.set('from', from);
      const answer = await this.#ask(task, { url, method: 'POST' });
      await discard(answer);
      // The registry has begun an upload instead.
      if (answer.status === 202) this.#begun.push(this.#uploadUrl(answer));
      return answer.status === 201;
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
    return this.#persist(task, async () => {
      const url = this.#begun.pop() ?? (await this.#beginUpload(task));
      // As text: what else the registry put there stays as it wrote it.
      url.search += `${url.search === '' ? '' : '&'}digest=${encodeURIComponent(digest)}`;
      const headers = { 'content-type': 'application/octet-stream', 'content-length': `${sizeBytes}` };
      const put = (to: URL) =>
        this.#ask(task, { url: to, method: 'PUT', headers, body: body(), slowAnswer: true }, false);
      let answer = await put(url);
      // The transport cannot send a stream again.
      for (let redirects = 0; isMoved(answer) && redirects < REDIRECT_LIMIT; redirects++) {
        await discard(answer);
        answer = await put(this.#uploadUrl(answer));
      }
      if ([404, 416].includes(answer.status)) {
        const why = 'the upload that was begun is not known there any more';
        throw new Transient(failed(url, `status ${answer.status}${await wordsOf(answer)}: ${why}`), false);
      }
      await this.#expect(answer, [200, 201, 204]);
      await discard(answer);
    });
  }

  async #beginUpload(task: Task): Promise<URL> {
    const answer = await this.#ask(task, { url: this.#url('blobs/uploads/'), method: 'POST' });
    await this.#expect(answer, [202]);
    await discard(answer);
    return this.#uploadUrl(answer);
  }

  #uploadUrl({ headers: { location }, url }: Answer): URL {
    if (location === undefined) throw failed(url, 'it does not say where to upload to');
    const next = locationOf(location, url);
    this.#transport.requireAllowed(next, url);
    return next;
  }

  #url(path: string): URL {
    return new URL(`/v2/${this.repository}/${path}`, this.#base);
  }

  #persist<T>(task: Task, attempt: () => Promise<T>): Promise<T> {
    return persist(task, attempt, this);
  }

  /** Logs in if the registry asks for it. After an upload the caller tries again with the new login. */
  async #ask(task: Task, question: Question, canRepeat = true): Promise<Answer> {
    for (let renewals = 0; ; renewals++) {
      const authorization = this.#isOwn(question.url) ? this.#authorization.header : undefined;
      const answer = await this.#transport.ask(task, { ...question, authorization });
      if (canRepeat && authorization === undefined && (await this.#wasHidden(task, answer))) continue;
      // Storage that the registry redirects to has no say in where its login goes.
      if (answer.status !== 401 || !this.#isOwn(answer.url)) return answer;
      await discard(answer);
      if (renewals === 2) throw this.#unauthorized(answer, 'it accepts none of the stored logins');
      await this.#authorization.answer(task, answer.headers['www-authenticate'], authorization);
      if (!canRepeat) throw new Transient(this.#unauthorized(answer, 'its login has expired'), false, 0);
    }
  }

  /** Some registries say to strangers that they have nothing. True if this host is logged in now. */
  async #wasHidden(task: Task, answer: Answer): Promise<boolean> {
    if (![403, 404].includes(answer.status) || !this.#isOwn(answer.url)) return false;
    this.#loggingIn ??= this.#logInUnasked(task).catch(() => false);
    const isLoggedIn = await this.#loggingIn;
    task.checkAborted();
    if (!isLoggedIn) return false;
    await discard(answer);
    return true;
  }

  async #logInUnasked(task: Task): Promise<boolean> {
    if (!(await this.#authorization.hasLogin(task))) return false;
    const url = new URL('/v2/', this.#base);
    const answer = await this.#transport.ask(task, { url, method: 'GET' });
    await discard(answer);
    if (answer.status !== 401 || !this.#isOwn(answer.url)) return false;
    await this.#authorization.answer(task, answer.headers['www-authenticate'], undefined);
    return true;
  }

  #isOwn(url: URL): boolean {
    return url.origin === this.#base.origin;
  }

  /** `advice` is for 404. */
  async #expect(answer: Answer, statuses: readonly number[], advice = 'check the reference'): Promise<void> {
    if (statuses.includes(answer.status)) return;
    const why = `status ${answer.status}${await wordsOf(answer)}`;
    // GitHub says 403 as well.
    const isTurnedAway = isBusy(answer.status) || (answer.status === 403 && 'retry-after' in answer.headers);
    const isRefused = !isTurnedAway && (answer.status === 401 || answer.status === 403);
    const advised = adviceFor(answer.status, why);
    if (advised !== undefined)
      throw new RootfsError('REGISTRY_FAILED', `${address(answer.url)}: ${why}; ${advised}`);
    if (isRefused && this.#isOwn(answer.url)) throw this.#unauthorized(answer, why);
    if (answer.status === 404)
      throw new RootfsError('REGISTRY_NOT_FOUND', `${address(answer.url)} is not there: ${why}; ${advice}`);
    if (isTurnedAway) {
      const error = new RootfsError(
        'REGISTRY_BUSY',
        `${address(answer.url)} is busy: ${why}; try again later, or with a lower concurrency`,
      );
      throw new Transient(error, true, retryAfterMs(answer.headers['retry-after']));
    }
    const error = failed(answer.url, why);
    // The registry gives a new address for what storage refuses.
    const isExpired = isRefused || (answer.status === 400 && !this.#isOwn(answer.url));
    const mayPass = answer.status >= 500 || answer.status === 408 || isExpired;
    throw mayPass ? new Transient(error, false) : error;
  }

  #unauthorized({ url }: Answer, why: string): RootfsError {
    return new RootfsError(
      'REGISTRY_UNAUTHORIZED',
      `${address(url)}: ${why}; log in with docker, podman, skopeo or oras, or ask for the right to do this` +
        this.#authorization.trouble,
    );
  }
}

function isMoved({ status, headers }: Answer): boolean {
  return (status === 307 || status === 308) && headers.location !== undefined;
}
