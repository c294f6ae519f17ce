// Asks a registry before skopeo does. skopeo sends a login to whatever token service a registry names. Told to take
// plain HTTP, it takes TLS with any certificate as well.

import type { RegistryCheck } from '../publish/fetch-image.js';
import type { RegistrySettings } from '../system/config.js';
import type { Task } from '../system/task.js';
import { Authorization } from './authorization.js';
import { isUntrusted } from './connection-errors.js';
import { withRetries } from './retry.js';
import { discard, Transport } from './transport.js';

interface Pinged {
  readonly isPlain: boolean;
  /** Undefined if skopeo is to find out. */
  readonly challenge: string | undefined;
}

const LEFT_TO_SKOPEO: Pinged = { isPlain: false, challenge: undefined };

/** See {@link RegistryCheck}. */
export async function checkRegistry(
  settings: RegistrySettings,
  ...[task, host, repository, isMirror]: Parameters<RegistryCheck>
): ReturnType<RegistryCheck> {
  const transport = new Transport(settings);
  try {
    const { isPlain, challenge } = transport.isInsecure(host)
      ? await withRetries(task, () => pingEither(task, transport, host), { isMirror })
      : await pingSecure(task, transport, host);
    await new Authorization(transport, host, repository, 'pull').requireRealms(challenge);
    return { isPlain };
  } finally {
    await transport.close();
  }
}

/** skopeo knows further certificates and proxies, and checks TLS as well. */
async function pingSecure(task: Task, transport: Transport, host: string): Promise<Pinged> {
  try {
    return await ping(task, transport, host, 'https');
  } catch {
    task.checkAborted();
    return LEFT_TO_SKOPEO;
  }
}

/** Plain HTTP only where there is no TLS. */
async function pingEither(task: Task, transport: Transport, host: string): Promise<Pinged> {
  try {
    return await ping(task, transport, host, 'https');
  } catch (error) {
    task.checkAborted();
    if (isUntrusted(error)) return LEFT_TO_SKOPEO;
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
  const challenge = status === 401 ? headers['www-authenticate'] : undefined;
  return { isPlain: scheme === 'http', challenge, status };
}
