// What `docker://…` names, as docker reads it: a name without a host is one of Docker Hub, which has several names.

import { canonicalHost } from '../system/registry-settings.js';

interface DockerReference {
  /** As `config.registries` has it. */
  readonly host: string;
  /** The repository, with its tag or digest. */
  readonly image: string;
}

/** Never throws: skopeo says what is wrong with a name. */
export function parseDockerReference(source: string): DockerReference {
  const name = withoutTagOfDigest(source.replace(/^docker:\/\//, ''));
  const [, first = '', rest = ''] = /^([^/]*)\/(.*)$/s.exec(name) ?? [];
  // A host has a dot, a port or capital letters, which a repository may not have.
  const isHost = /[.:A-Z]|^localhost$/.test(first);
  const [named, image] = isHost ? [first, rest] : ['docker.io', name];
  const host = canonicalHost(named);
  return { host, image: canonicalRepository(host, image) };
}

/** Adds the part of the name that is usually left out for Docker's own images. */
export function canonicalRepository(host: string, repository: string): string {
  return host === 'docker.io' && !repository.includes('/') ? `library/${repository}` : repository;
}

/** skopeo takes no reference with both, and the digest says it all. */
function withoutTagOfDigest(name: string): string {
  return name.replace(/:[^:/@]*@/, '@');
}
