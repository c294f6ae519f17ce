// Asks a registry before skopeo does, and logs in for it. skopeo sends a login to whatever token service a registry
// names, and follows that service anywhere. Told to take plain HTTP, it takes TLS with any certificate as well.

import type { RegistryCheck } from '../publish/fetch-image.js';
import { NO_LOGIN, type RegistryAccess } from '../publish/skopeo-access.js';
import type { RegistrySettings } from '../system/config.js';
import { RootfsError } from '../system/errors.js';
import type { Task } from '../system/task.js';
import { Authorization, NO_TOKEN } from './authorization.js';
import { address, failed, isUntrusted } from './connection-errors.js';
import { isRepository } from './reference.js';
import { isBusy, retryAfterMs, Transient, withRetries } from './retry.js';
import { discard, Transport } from './transport.js';

interface Pinged {
  readonly isPlain: boolean;
  readonly challenge: string | undefined;
}

/** See {@link RegistryCheck}. */
export async function checkRegistry(
  settings: RegistrySettings,
  ...[task, host, repository, isMirror]: Parameters<RegistryCheck>
): Promise<RegistryAccess> {
  // skopeo says what is wrong with a name.
  if (!isRepository(repository)) return withoutLogin(NO_TOKEN);
  const transport = new Transport(settings);
  try {
    const pinged = transport.isInsecure(host)
      ? await withRetries(task, () => pingEither(task, transport, host), { isMirror })
      : await pingSecure(task, transport, host);
    if ('token' in pinged) return pinged;
    const authorization = new Authorization(transport, host, repository, 'pull');
    const passed = await withRetries(task, () => authorization.passOn(task, pinged.challenge), { isMirror });
    return { ...NO_LOGIN, ...passed, isPlain: pinged.isPlain, trouble: authorization.trouble };
  } finally {
    await transport.close();
  }
}

/** `token` is undefined if skopeo may ask for one as a stranger. */
function withoutLogin(token: string | undefined, error?: unknown): RegistryAccess {
  const trouble = error === undefined ? '' : `; no login was sent: ${(error as Error).message}`;
  return { ...NO_LOGIN, token, trouble, mayPass: error instanceof Transient };
}

/** skopeo knows further certificates, proxies and mirrors, and checks TLS as well. It may go on without a login. */
async function pingSecure(task: Task, transport: Transport, host: string): Promise<Pinged | RegistryAccess> {
  try {
    return await ping(task, transport, host, 'https');
  } catch (error) {
    task.checkAborted();
    // A registry that only does not answer us shall not choose a token service either.
    return withoutLogin(error instanceof Transient ? NO_TOKEN : undefined, error);
  }
}

/** Plain HTTP only where there is no TLS. */
async function pingEither(task: Task, transport: Transport, host: string): Promise<Pinged | RegistryAccess> {
  try {
    return await ping(task, transport, host, 'https');
  } catch (error) {
    task.checkAborted();
    if (isUntrusted(error)) return withoutLogin(undefined, error);
    const plain = await ping(task, transport, host, 'http');
    // Servers that want TLS say 400 to plain HTTP.
    if (plain.status === 400) throw error;
    return plain;
  }
}

async function ping(
  task: Task,
  transport: Transport,
  host: string,
  scheme: 'http' | 'https',
): Promise<Pinged & { readonly status: number }> {
  const url = new URL('/v2/', transport.baseOf(host, scheme));
  const response = await transport.send(task, { url, method: 'GET' });
  await discard(response);
  const { status, headers } = response;
  const why = `status ${status}`;
  if (isBusy(status)) {
    const busy = new RootfsError('REGISTRY_BUSY', `${address(url)} is busy: ${why}; try again later`);
    throw new Transient(busy, true, retryAfterMs(headers['retry-after']));
  }
  if (status >= 500) throw new Transient(failed(url, why), false);
  // skopeo heeds a challenge that comes with either.
  const challenge = status === 401 || status === 200 ? headers['www-authenticate'] : undefined;
  return { isPlain: scheme === 'http', challenge, status };
}
