// The settings of OCI registries, by host (`registry.example`, `localhost:5000`).
import { absolutePath, optionalBoolean, readOptions, show } from './arguments.js';
import { RootfsError } from './errors.js';

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

/** A copy that nobody can change. Throws `INVALID_ARGUMENT`. */
export function parseRegistrySettings(value: unknown): RegistrySettings {
  requireKnownHosts(value);
  const settings = Object.entries(value as RegistrySettings).map(([host, setting]) => [
    host,
    parseSetting(`config.registries["${host}"]`, setting),
  ]);
  return Object.freeze(Object.fromEntries(settings));
}

function parseSetting(name: string, setting: RegistrySetting): RegistrySetting {
  const given = readOptions(name, setting, ['insecure', 'ca', 'mirrors', 'realms']);
  const { insecure, ca, mirrors, realms } = given;
  optionalBoolean(`${name}.insecure`, insecure);
  return Object.freeze({
    ...given,
    ...(ca === undefined ? {} : { ca: absolutePath(`${name}.ca`, ca) }),
    ...(mirrors === undefined ? {} : { mirrors: parseHosts(`${name}.mirrors`, mirrors) }),
    ...(realms === undefined ? {} : { realms: parseHosts(`${name}.realms`, realms) }),
  });
}

function parseHosts(name: string, value: unknown): readonly string[] {
  const hosts = Array.isArray(value) ? [...value] : [undefined];
  if (!hosts.every(isRegistryHost)) throw invalid(`${name} must be an array of hosts, got ${show(value)}`);
  return Object.freeze(hosts);
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
