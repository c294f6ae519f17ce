// The settings of OCI registries, by host (`registry.example`, `localhost:5000`).
import { absolutePath, optionalBoolean, readOptions, show } from './arguments.js';
import { invalidArgument } from './errors.js';

export interface RegistrySetting {
  /**
   * Plain http instead of TLS. Only for a registry on this host or in a trusted network. `docker://…` goes by TLS
   * where the registry answers that, and then checks its certificate.
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

/** The name under which settings and logins of a registry are found. Docker Hub has several. */
export function canonicalHost(host: string): string {
  const name = lowerCase(host);
  return ['index.docker.io', 'registry-1.docker.io'].includes(name) ? 'docker.io' : name;
}

function lowerCase(host: string): string {
  return host.toLowerCase();
}

/** A copy that nobody can change, by canonical hosts. Throws `INVALID_ARGUMENT`. */
export function parseRegistrySettings(value: unknown): RegistrySettings {
  requireKnownHosts(value);
  const settings = new Map<string, RegistrySetting>();
  for (const [key, setting] of Object.entries(value as RegistrySettings)) {
    const host = canonicalHost(key);
    if (settings.has(host))
      throw invalidArgument(
        `config.registries has the key ${show(key)}, and another that means ${host}: keep one`,
      );
    settings.set(host, parseSetting(`config.registries["${key}"]`, setting));
  }
  return Object.freeze(Object.fromEntries(settings));
}

function parseSetting(name: string, setting: RegistrySetting): RegistrySetting {
  const given = readOptions(name, setting, ['insecure', 'ca', 'mirrors', 'realms']);
  const { insecure, ca, mirrors, realms } = given;
  optionalBoolean(`${name}.insecure`, insecure);
  return Object.freeze({
    ...given,
    ...(ca === undefined ? {} : { ca: absolutePath(`${name}.ca`, ca) }),
    ...(mirrors === undefined ? {} : { mirrors: parseHosts(`${name}.mirrors`, mirrors, canonicalHost) }),
    ...(realms === undefined ? {} : { realms: parseHosts(`${name}.realms`, realms, lowerCase) }),
  });
}

function parseHosts(name: string, value: unknown, spelled: (host: string) => string): readonly string[] {
  const hosts = Array.isArray(value) ? [...value] : [undefined];
  if (!hosts.every(isRegistryHost))
    throw invalidArgument(`${name} must be an array of hosts, got ${show(value)}`);
  return Object.freeze(hosts.map(spelled));
}

function requireKnownHosts(value: unknown): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalidArgument(`config.registries must be an object, got ${show(value)}`);
  for (const host of Object.keys(value)) {
    if (!isRegistryHost(host))
      throw invalidArgument(
        `config.registries has the key ${show(host)}: it must be a host, such as registry.example:5000`,
      );
  }
}
