// References to artifacts in registries: HOST/NAME:TAG or HOST/NAME@sha256:….
import { canonicalRepository } from '../publish/docker-reference.js';
import { show } from '../system/arguments.js';
import { RootfsError } from '../system/errors.js';
import { canonicalHost, isRegistryHost } from '../system/registry-settings.js';
import { isSha256Digest } from '../system/sha256.js';
import { NO_USER_INFO, userInfoHidden } from '../system/user-info.js';

export interface Reference {
  readonly host: string;
  readonly repository: string;
  /** `latest` if the reference names neither a tag nor a digest. */
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const REPOSITORY_LIMIT = 255;

/** Throws `REFERENCE_INVALID`. */
export function parseReference(text: unknown): Reference {
  if (typeof text !== 'string') throw invalid(text, 'it must be a string');
  const hidden = userInfoHidden(text);
  if (hidden !== undefined) throw invalid(hidden, NO_USER_INFO);
  const [named = '', digest, ...more] = text.split('@');
  if (more.length > 0 || (digest !== undefined && !isSha256Digest(digest)))
    throw invalid(text, 'a digest is sha256: and 64 lower-case hex digits');
  const [, first = '', rest = ''] = /^([^/]+)\/(.+)$/.exec(named) ?? [];
  const host = canonicalHost(first);
  if (!isRegistryHost(first) || !/[.:]|^localhost$/.test(host))
    throw invalid(text, 'it must begin with the host of a registry, such as registry.example/');
  const [name = '', tag, ...further] = rest.split(':');
  const repository = canonicalRepository(host, name);
  if (!isRepository(repository))
    throw invalid(text, 'after the host comes a name of lower-case letters, digits and single separators');
  if (further.length > 0 || (tag !== undefined && !TAG.test(tag)))
    throw invalid(text, 'a tag has letters, digits, _, . and -, at most 128');
  return { host, repository, tag: tag ?? (digest === undefined ? 'latest' : undefined), digest };
}

export function isRepository(name: string): boolean {
  return name.length <= REPOSITORY_LIMIT && name.split('/').every((component) => COMPONENT.test(component));
}

export function formatReference({ host, repository, tag, digest }: Reference): string {
  return `${host}/${repository}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}

function invalid(text: unknown, why: string): RootfsError {
  return new RootfsError(
    'REFERENCE_INVALID',
    `invalid reference ${show(text)}: ${why}; give HOST/NAME:TAG or HOST/NAME@sha256:…`,
  );
}

/** What the stack or snapshot is called here, unless another name is given: the last part of the reference's name. */
export function defaultName({ repository }: Reference): string {
  return repository.split('/').at(-1) as string;
}
