// Logs in to a registry: Basic, or a token from the service that the registry names (distribution's token
// specification).

import { isIP } from 'node:net';
import { type Credentials, credentialsFor, type StoredLogin } from '../publish/credentials.js';
import { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { type Challenge, challengesIn, joinScopes, parseChallenge } from './challenge.js';
import { address, failed } from './connection-errors.js';
import { isPublicAddress, NoPublicAddress, requirePublicHost } from './public-addresses.js';
import { isBusy, retryAfterMs, Transient } from './retry.js';
import { discard, type HttpRequest, type HttpResponse, readAll, type Transport } from './transport.js';

const TOKEN_BYTES_LIMIT = 1024 * 1024;

/** Gives no access. A program that has a token asks no token service for another. */
export const NO_TOKEN = '-';

/** What another program may have to log in. */
export interface PassedOn {
  readonly token: string;
  readonly credentials: Credentials | undefined;
}

/** Logs in to one repository of one host. */
export class Authorization {
  readonly #transport: Transport;
  readonly #host: string;
  readonly #repository: string;
  readonly #scopes: string[];
  #header: string | undefined;
  #asking: Promise<void> | undefined;
  #login: Promise<StoredLogin> | undefined;
  #trouble = '';

  constructor(transport: Transport, host: string, repository: string, actions: string) {
    this.#transport = transport;
    this.#host = host;
    this.#repository = repository;
    this.#scopes = [`repository:${repository}:${actions}`];
  }

  /** From the next token on. */
  alsoPull(repository: string): void {
    this.#scopes.push(`repository:${repository}:pull`);
  }

  /** The header to send. Undefined until the registry has asked for a login. */
  get header(): string | undefined {
    return this.#header;
  }

  /** For a refusal: what kept a login from being found, if anything. */
  get trouble(): string {
    return this.#trouble;
  }

  /** After a 401 to a request with the header `sent`. `REGISTRY_UNAUTHORIZED` if there is no other login. */
  async logIn(task: Task, challenge: string | undefined, sent: string | undefined): Promise<void> {
    // Another request was faster to get a new token.
    if (sent !== this.#header) return;
    this.#asking ??= this.#renew(task, challenge).finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async hasLogin(task: Task): Promise<boolean> {
    return (await this.#lookUp(task)).credentials !== undefined;
  }

  async #lookUp(task: Task): Promise<StoredLogin> {
    this.#login ??= credentialsFor(this.#host, this.#repository, task.signal);
    const { trouble } = await this.#login;
    this.#trouble = trouble === undefined ? '' : `; a login could not be looked up: ${trouble.message}`;
    return this.#login;
  }

  /**
   * For a program that sends a login to whatever token service it is sent to: it gets a token from here, and the login
   * only for the registry itself (`Basic`). Rejects as {@link logIn} does.
   */
  async passOn(task: Task, header: string | undefined): Promise<PassedOn> {
    await this.#requireRealms(header);
    const { credentials } = await this.#lookUp(task);
    const [first] = challengesIn(header);
    if (first?.scheme !== 'bearer')
      return { token: NO_TOKEN, credentials: first === undefined ? undefined : credentials };
    // Only what this repository needs: other users can read the command line of a program.
    const challenge = { ...first, parameters: { ...first.parameters, scope: '' } };
    return { token: await this.#token(task, challenge, credentials), credentials: undefined };
  }

  async #requireRealms(header: string | undefined): Promise<void> {
    for (const { scheme, parameters } of challengesIn(header)) {
      if (scheme !== 'bearer') continue;
      const { url, publicOnly } = this.#requireRealm(parameters.realm ?? '');
      if (!publicOnly) continue;
      await requirePublicHost(url).catch(() => {
        throw this.#notAllowed(url);
      });
    }
  }

  async #renew(task: Task, header: string | undefined): Promise<void> {
    const challenge = parseChallenge(header);
    // What a helper gave may have expired, as a token has.
    if (this.#header !== undefined) this.#login = undefined;
    const { credentials } = await this.#lookUp(task);
    if (challenge === undefined) throw this.#refused('it asks for a kind of login that is not supported');
    const renewed =
      challenge.scheme === 'basic'
        ? basic(credentials)
        : `Bearer ${await this.#token(task, challenge, credentials)}`;
    if (renewed === undefined) throw this.#refused('it asks for a login, and none is stored');
    // Some registries refuse a login now and then, so it is tried once more.
    if (renewed === this.#header)
      throw new Transient(this.#refused('it does not accept the stored login'), false, undefined, 2);
    this.#header = renewed;
  }

  async #token(task: Task, { parameters }: Challenge, credentials: Credentials | undefined): Promise<string> {
    const { realm = '', service, scope = '' } = parameters;
    const scopes = joinScopes(scope, this.#scopes);
    const { url, publicOnly } = this.#requireRealm(realm);
    const withToken = credentials !== undefined && 'identityToken' in credentials;
    const asked = new URLSearchParams(service === undefined ? {} : { service });
    if (withToken) {
      asked.set('scope', scopes.join(' '));
      asked.set('grant_type', 'refresh_token');
      asked.set('client_id', 'microvm-rootfs');
      asked.set('refresh_token', credentials.identityToken);
    } else {
      // One parameter for each, as distribution's specification has it.
      for (const each of scopes) asked.append('scope', each);
      for (const name of asked.keys()) url.searchParams.delete(name);
      for (const [name, value] of asked) url.searchParams.append(name, value);
    }
    const response = await this.#sendToService(task, {
      url,
      publicOnly,
      followRedirects: false,
      method: withToken ? 'POST' : 'GET',
      authorization: withToken ? undefined : basic(credentials),
      ...(withToken
        ? { body: asked.toString(), headers: { 'content-type': 'application/x-www-form-urlencoded' } }
        : {}),
    });
    if (response.status !== 200) {
      await discard(response);
      throw this.#noToken(response);
    }
    return this.#tokenIn(await readAll(response, TOKEN_BYTES_LIMIT));
  }

  async #sendToService(task: Task, request: HttpRequest): Promise<HttpResponse> {
    try {
      return await this.#transport.send(task, request);
    } catch (error) {
      throw (error as Error).cause instanceof NoPublicAddress ? this.#notAllowed(request.url) : error;
    }
  }

  #noToken({ status, headers, url }: HttpResponse): Error {
    const why = `it answers the request for a token with status ${status}`;
    if (isBusy(status)) {
      const error = new RootfsError('REGISTRY_BUSY', `${address(url)} is busy: ${why}; try again later`);
      return new Transient(error, true, retryAfterMs(headers['retry-after']));
    }
    if (status >= 500) return new Transient(failed(url, why), false);
    return this.#refused(`${url.host} answers the request for a token with status ${status}`);
  }

  #tokenIn(body: Buffer): string {
    try {
      const { token, access_token } = JSON.parse(body.toString('utf8'));
      // Some services send both, one of them empty.
      const given = [token, access_token].find(isToken);
      if (given !== undefined) return given;
    } catch {
      // Not JSON.
    }
    throw this.#refused('its token service sends no token');
  }

  /** The password is sent there, so the service must be the registry's own, or a public one, or named in `realms`. */
  #requireRealm(realm: string): { url: URL; publicOnly: boolean } {
    let url: URL;
    try {
      url = new URL(realm);
    } catch {
      throw this.#refused('it does not name one token service');
    }
    if (url.username !== '' || url.password !== '')
      throw this.#refused('the URL of its token service holds a password');
    const own = url.origin === this.#transport.baseOf(this.#host).origin;
    const named = this.#isNamed(url);
    const plain = named && this.#transport.isInsecure(url.host);
    if (own || (named && (url.protocol === 'https:' || plain))) return { url, publicOnly: false };
    const literal = url.hostname.replace(/^\[|\]$/g, '');
    const isPrivate = url.hostname === 'localhost' || (isIP(literal) !== 0 && !isPublicAddress(literal));
    if (url.protocol === 'https:' && !isPrivate) return { url, publicOnly: true };
    throw this.#notAllowed(url);
  }

  #isNamed(url: URL): boolean {
    return (this.#transport.settings[this.#host]?.realms ?? []).includes(url.host);
  }

  #notAllowed(url: URL): RootfsError {
    const isPlain = url.protocol === 'http:' && !this.#transport.isInsecure(url.host);
    const settings = [
      ...(this.#isNamed(url) ? [] : [`add "${url.host}" to realms in config.registries["${this.#host}"]`]),
      ...(isPlain ? [`set insecure in config.registries["${url.host}"]`] : []),
    ];
    return this.#refused(
      `its token service is ${url.origin}, which is not trusted: ` +
        `${settings.join(' and ')} if that is correct`,
    );
  }

  #refused(why: string): RootfsError {
    return new RootfsError(
      'REGISTRY_UNAUTHORIZED',
      `registry ${this.#host} gives no access to ${this.#repository}: ${why}; ` +
        `log in with docker, podman, skopeo or oras${this.#trouble}`,
    );
  }
}

function isToken(value: unknown): value is string {
  // No server takes a longer header, and no program a longer argument.
  return typeof value === 'string' && /^[\x21-\x7e]{1,65536}$/.test(value);
}

function basic(credentials: Credentials | undefined): string | undefined {
  if (credentials === undefined || 'identityToken' in credentials) return undefined;
  const { username, password } = credentials;
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}
