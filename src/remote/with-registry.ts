// A connection to a registry for one push or pull.

import type { RegistrySettings } from '../system/config.js';
import type { Reference } from './reference.js';
import { RegistryClient } from './registry-client.js';
import { Transport } from './transport.js';

/** Runs `work` with clients of the registry's mirrors and, last, of the registry itself. Connections end with it. */
export async function withRegistry<T>(
  settings: RegistrySettings,
  reference: Reference,
  actions: 'pull' | 'pull,push',
  work: (clients: readonly RegistryClient[]) => Promise<T>,
): Promise<T> {
  const transport = new Transport(settings);
  const mirrors = actions === 'pull' ? (settings[reference.host]?.mirrors ?? []) : [];
  const clients = [...mirrors, reference.host].map(
    (host, i) => new RegistryClient(transport, host, reference.repository, actions, i < mirrors.length),
  );
  try {
    return await work(clients);
  } finally {
    await transport.close();
  }
}
