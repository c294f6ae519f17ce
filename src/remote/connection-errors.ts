// Why a connection failed, and whether another try may help.

import { RootfsError } from '../system/errors.js';
import { Transient } from './retry.js';

// Another try would fail in the same way.
const LASTING =
  /CERT|SELF_SIGNED|ERR_TLS|UNABLE_TO|DEPTH_ZERO|ERR_SSL|EPROTO|HOSTNAME|ENOTFOUND|ERR_INVALID_URL/;

/** What to do about a certificate that is not trusted, by OpenSSL's code and Node's. */
const CERTIFICATE_ADVICE: readonly (readonly [RegExp, (host: string) => string])[] = [
  [
    /SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/,
    (host) => `if you trust that authority, give its certificate as registries['${host}'].ca`,
  ],
  [/CERT_(HAS_EXPIRED|NOT_YET_VALID)/, () => "renew the registry's certificate, or check this host's clock"],
  [/ALTNAME_INVALID|HOSTNAME_MISMATCH/, () => 'use a name that is in the certificate'],
];

/** Codes for a certificate that is not trusted, whatever the reason. */
const UNTRUSTED = /CERT|SELF_SIGNED|UNABLE_TO|DEPTH_ZERO|HOSTNAME/;

/** Whether a request failed because the host answered TLS with a certificate that is not trusted. */
export function isUntrusted(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as { code?: unknown };
  return typeof code === 'string' && UNTRUSTED.test(code);
}

/** Perhaps nobody is there for good, so fewer tries are enough. */
const UNREACHABLE = /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH/;

export function connectionFailed(url: URL, error: unknown): unknown {
  if (error instanceof RootfsError || error instanceof Transient) return error;
  const { code = '' } = error as { code?: string };
  const message = messageOf(error as Error);
  const told = `${message}${code === '' || message.includes(code) ? '' : ` (${code})`}`;
  const [, advise] = CERTIFICATE_ADVICE.find(([codes]) => codes.test(code)) ?? [];
  if (advise !== undefined) {
    const message = `${address(url)}: ${told}; ${advise(url.host)}`;
    return new RootfsError('REGISTRY_FAILED', message, { cause: error });
  }
  const why = /wrong version number/.test(message)
    ? failed(url, `it does not use TLS: if that is intended, set registries['${url.host}'].insecure`, error)
    : failed(url, told, error);
  if (LASTING.test(code)) return why;
  return new Transient(why, false, undefined, UNREACHABLE.test(code) ? 3 : undefined);
}

/** A host of several addresses fails with an error of each. Together they have no message. */
function messageOf(error: Error): string {
  return error instanceof AggregateError ? error.errors.map(messageOf).join('; ') : error.message;
}

export function failed(url: URL, why: string, cause?: unknown): RootfsError {
  return new RootfsError(
    'REGISTRY_FAILED',
    `${address(url)}: ${why}; check the network, the proxy and that the registry runs`,
    { cause },
  );
}

/** Without what may be secret: the user, and the query of a signed URL. */
export function address(url: URL): string {
  return `${url.origin}${url.pathname}`;
}
