// Tells from skopeo's words whether the registry, the reference or this machine is at fault.

import { isFaultOfThisMachine, programFailed } from '../programs/program-failed.js';
import type { Exit } from '../programs/run-program.js';
import { MOST_TRIES } from '../system/back-off.js';
import type { RootfsError, RootfsErrorCode } from '../system/errors.js';
import { parseDockerReference } from './docker-reference.js';

// skopeo uses the same exit status for all of these.
const FAILURES: readonly (readonly [RegExp, RootfsErrorCode, string])[] = [
  [
    /toomanyrequests|too many requests|status\D+(429|503)/i,
    'REGISTRY_BUSY',
    'try again later, log in, or put a mirror in front of it',
  ],
  [
    /digest did not match|does not match provided manifest digest/i,
    'DIGEST_MISMATCH',
    'what it sends is damaged',
  ],
  [/policy\.json/, 'PROGRAM_FAILED', "make skopeo's signature policy readable"],
  [
    /rejected by policy|signature was required/i,
    'PROGRAM_FAILED',
    "this host's signature policy for skopeo (policy.json) rejects the image",
  ],
  [
    /is blocked in |loading registries configuration/i,
    'PROGRAM_FAILED',
    "correct skopeo's registries.conf of this host",
  ],
  [
    /server gave HTTP response to HTTPS client/,
    'REGISTRY_FAILED',
    'it does not use TLS: if that is intended, set insecure for it in config.registries',
  ],
  [
    /x509: certificate signed by unknown authority|x509: certificate is not trusted/,
    'REGISTRY_FAILED',
    'set ca in config.registries to the CA that signed its certificate',
  ],
  [
    /x509: certificate has expired or is not yet valid/,
    'REGISTRY_FAILED',
    "renew the registry's certificate, or check this host's clock",
  ],
  [
    /x509: (certificate is (valid for|not valid for any names)|cannot validate certificate for)/,
    'REGISTRY_FAILED',
    'use a name that is in the certificate',
  ],
  [
    /x509: certificate relies on legacy Common Name/,
    'REGISTRY_FAILED',
    'issue its certificate with that name as an alternative name (SAN)',
  ],
  [
    /docker-credential-\S+.*executable file not found/i,
    'REGISTRY_UNAUTHORIZED',
    'install the credential helper that the login file names',
  ],
  [/invalid reference format|invalid source name/i, 'REFERENCE_INVALID', 'give docker://HOST/NAME:TAG'],
  [
    /no image found in (manifest list|image index)/i,
    'ARTIFACT_INVALID',
    'choose a platform that the image supports',
  ],
  [
    /exceeded maximum allowed size/,
    'ARTIFACT_INVALID',
    'its config is larger than skopeo takes: make it smaller',
  ],
  [
    /unexpectedly received a manifest list/i,
    'ARTIFACT_INVALID',
    'it is an index in an index: name one of its images by its digest',
  ],
  // An answer without the registry's own words.
  [/StatusCode: 404/, 'REGISTRY_NOT_FOUND', 'check its name and its tag'],
  [
    /StatusCode: 403|pinging .* 403/,
    'REGISTRY_UNAUTHORIZED',
    'log in with docker, podman or skopeo, or check the name',
  ],
  [
    // A program or a library of this machine can be "not found" as well.
    /manifest unknown|name unknown|(?<!executable file )not found(?! in \$PATH| \(required by)|no descriptor found/i,
    'REGISTRY_NOT_FOUND',
    'check its name and its tag',
  ],
  [
    /unauthorized|authentication required|access to the resource is denied|denied/i,
    'REGISTRY_UNAUTHORIZED',
    'log in with docker, podman or skopeo, or check the name',
  ],
];

// As the library's own transport sees them. skopeo itself tries again after 429. Wrong bytes may be a damaged copy on
// the way.
const PASSING: readonly (readonly [RegExp, number])[] = [
  [/digest did not match/i, 2],
  // Perhaps nobody is there for good.
  [/connection refused|no route to host|network is unreachable/i, 3],
  [/status\D+5\d\d|\bEOF\b|connection reset|broken pipe|timeout|timed out|stream error|GOAWAY/i, MOST_TRIES],
];

/** How often this failure to copy `name` may happen before it is the answer. */
export function triesOf(exit: Exit, name: string): number {
  if (isFaultOfThisMachine(exit)) return 1;
  const said = withoutNames(exit.stderr, name);
  return PASSING.find(([words]) => words.test(said))?.[1] ?? 1;
}

const OF_REGISTRY = [/./, 'REGISTRY_FAILED', 'check the network and that the registry runs'] as const;
const OF_LAYOUT = [/./, 'ARTIFACT_INVALID', 'the layout is damaged: create it again'] as const;

// Registries begin what they say with one of these words. "denied: permission denied" is not a fault of this machine.
const SAID_BY_REGISTRY = /\b(denied|unauthorized|toomanyrequests): /i;

/** `name` is what skopeo was to copy, `trouble` what kept a login from being sent. */
export function skopeoFailed(
  program: string,
  source: string,
  exit: Exit,
  { name, trouble }: { readonly name: string; readonly trouble: string },
): RootfsError {
  const said = withoutNames(exit.stderr, name);
  if (isFaultOfThisMachine(exit) && !SAID_BY_REGISTRY.test(said))
    return programFailed('PROGRAM_FAILED', program, source, exit);
  const isLayout = source.startsWith('oci:');
  const found = FAILURES.find(
    ([words, code]) => words.test(said) && (!isLayout || /^(ARTIFACT|PROGRAM)_/.test(code)),
  );
  const [, code, advice] = found ?? (isLayout ? OF_LAYOUT : OF_REGISTRY);
  const why = code === 'REGISTRY_UNAUTHORIZED' ? trouble : '';
  return programFailed(code, program, source, exit, `; ${advice}${why}`);
}

// URLs, and the tag and the repository that skopeo tells.
const NAMES = /\S*:\/\/\S*|(?<=reading manifest )\S+ in \S+/g;

/** A repository `denied-app` and a tag `v429` hold the words of other failures. */
function withoutNames(stderr: string, name: string): string {
  const { host } = parseDockerReference(name);
  return stderr.replace(NAMES, ' ').replaceAll(host, ' ');
}
