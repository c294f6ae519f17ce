// The settings of OCI registries, by host (`registry.example`, `localhost:5000`).
import { isPath, requireKnownKeys, show } from './arguments.js';
import { RootfsError } from './errors.js';

export interface RegistrySetting {
  /**
   * Plain http instead of TLS. Only for a registry on this host or in a trusted network. skopeo, which fetches
   * container images, then takes TLS with unchecked certificates as well.
   */
  readonly insecure?: boolean;
  /** A PEM file with the certificate authorities that may have signed its certificate. */
  readonly ca?: string;
  /** Hosts that pulls and `docker://…` ask first, in this order. What they send is verified like everything else. */
  readonly mirrors?: readonly string[];
  /** Further hosts that may issue tokens for this registry, such as `auth.example` or `auth.internal:5001`. */
  readonly realms?: readonly string[];
}

export type RegistrySettings = Readonly<Record<string, RegistrySetting>>;

const HOST = /^[a-z0-9.-]+(:[0-9]{1,5})?$|^\[[0-9a-f:]+\](:[0-9]{1,5})?$/i;

/** Whether this is a host, with or without a port. */
export function isRegistryHost(value: unknown): value is string {
  // Not every text of that form has a URL: `[:::]`, `1.2.3.999` and `a:99999` have none.
  return typeof value === 'string' && HOST.test(value) && URL.canParse(`https://${value}`);
}

/** Throws `INVALID_ARGUMENT`. */
export function parseRegistrySettings(value: unknown): RegistrySettings {
  requireKnownHosts(value);
  const settings = value as Record<string, RegistrySetting>;
  for (const [host, setting] of Object.entries(settings)) {
    const name = `config.registries["${host}"]`;
    requireKnownKeys(name, setting, ['insecure', 'ca', 'mirrors', 'realms']);
    const { insecure, ca, mirrors = [], realms = [] } = setting;
    if (insecure !== undefined && typeof insecure !== 'boolean')
      throw invalid(`${name}.insecure must be true or false, got ${show(insecure)}`);
    if (ca !== undefined && !isPath(ca))
      throw invalid(`${name}.ca must be a path without NUL, got ${show(ca)}`);
    for (const [key, hosts] of Object.entries({ mirrors, realms })) {
      if (!Array.isArray(hosts) || !hosts.every(isRegistryHost))
        throw invalid(`${name}.${key} must be an array of hosts, got ${show(hosts)}`);
    }
  }
  return settings;
}

function requireKnownHosts(value: unknown): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`config.registries must be an object, got ${show(value)}`);
  for (const host of Object.keys(value)) {
    if (!isRegistryHost(host))
      throw invalid(
        `config.registries has the key ${show(host)}: it must be a host, such as registry.example:5000`,
      );
  }
}

function invalid(message: string): RootfsError {
  return new RootfsError('INVALID_ARGUMENT', message);
}
