// How a registry asks for a login: the header `WWW-Authenticate` (RFC 9110), and scopes of distribution's tokens.

export interface Challenge {
  readonly scheme: 'basic' | 'bearer';
  readonly parameters: Readonly<Record<string, string>>;
}

// A parameter, or the name of a scheme.
const CHALLENGE_PART = /([a-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]*))|([a-z][a-z0-9-]*)(?=[\s,]|$)/gi;

/**
 * `Bearer realm="…",service="…"`. Of several challenges, the first `Bearer` that names a token service, else
 * `Basic`: Gitea sends both. Undefined if all are of schemes that are not known.
 */
export function parseChallenge(header: string | undefined): Challenge | undefined {
  const known = challengesIn(header);
  return (
    known.find(({ scheme, parameters }) => scheme === 'bearer' && URL.canParse(parameters.realm ?? '')) ??
    known.find(({ scheme }) => scheme === 'basic') ??
    known[0]
  );
}

/** Those of known schemes. A parameter that is given twice is empty: other programs may take the other value. */
export function challengesIn(header: string | undefined): Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  for (const [, name, quoted, bare, scheme] of (header ?? '').matchAll(CHALLENGE_PART)) {
    if (scheme !== undefined) challenges.push({ scheme: scheme.toLowerCase(), parameters: {} });
    const { parameters } = challenges.at(-1) ?? {};
    if (name === undefined || parameters === undefined) continue;
    const key = name.toLowerCase();
    parameters[key] = key in parameters ? '' : (quoted?.replaceAll(/\\(.)/g, '$1') ?? bare ?? '');
  }
  return challenges.filter((each): each is Challenge => ['basic', 'bearer'].includes(each.scheme));
}

/**
 * Those that the registry asks for, and ours: it names what one request needs, and a token serves all of them. Actions
 * on the same thing are joined.
 */
export function joinScopes(asked: string, own: readonly string[]): string[] {
  const actions = new Map<string, Set<string>>();
  for (const scope of [...asked.split(' '), ...own].filter((each) => each !== '')) {
    const end = scope.lastIndexOf(':') + 1;
    const known = actions.get(scope.slice(0, end)) ?? new Set();
    for (const action of scope.slice(end).split(',')) known.add(action);
    actions.set(scope.slice(0, end), known);
  }
  return [...actions].map(([thing, of]) => thing + [...of].join(','));
}
