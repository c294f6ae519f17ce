// What `docker://…` names, as docker reads it: a name without a host is one of Docker Hub.

export interface DockerReference {
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
  const [host, image] = isHost ? [first, rest] : ['docker.io', name];
  if (!['docker.io', 'index.docker.io'].includes(host)) return { host, image };
  return { host: 'docker.io', image: image.includes('/') ? image : `library/${image}` };
}

/** skopeo takes no reference with both, and the digest says it all. */
function withoutTagOfDigest(name: string): string {
  return name.replace(/:[^:/@]*@/, '@');
}
