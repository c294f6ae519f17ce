// Tells from skopeo's words whether the registry, the reference or this machine is at fault.

import { isFaultOfThisMachine, programFailed } from '../programs/program-failed.js';
import type { Exit } from '../programs/run-program.js';
import { MOST_TRIES } from '../system/back-off.js';
import type { RootfsError, RootfsErrorCode } from '../system/errors.js';

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
    /docker-credential-\S+.*executable file not found/i,
    'REGISTRY_UNAUTHORIZED',
    'install the credential helper that the login file names',
  ],
  [/invalid reference format|invalid source name/i, 'REFERENCE_INVALID', 'give docker://HOST/NAME:TAG'],
  [
    /no image found in (manifest list|image index)/i,
    'ARTIFACT_INVALID',
    'give a platform that the image is there for',
  ],
  [
    /unexpectedly received a manifest list/i,
    'ARTIFACT_INVALID',
    'it is an index in an index: name one of its images by its digest',
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

/** How often this failure may happen before it is the answer. */
export function triesOf(exit: Exit): number {
  if (isFaultOfThisMachine(exit)) return 1;
  return PASSING.find(([words]) => words.test(exit.stderr))?.[1] ?? 1;
}

const OF_REGISTRY = [/./, 'REGISTRY_FAILED', 'check the network and that the registry runs'] as const;
const OF_LAYOUT = [/./, 'ARTIFACT_INVALID', 'the layout is damaged: make it anew'] as const;

// Registries begin what they say with one of these words. "denied: permission denied" is no fault of this machine.
const SAID_BY_REGISTRY = /\b(denied|unauthorized|toomanyrequests): /i;

export function skopeoFailed(program: string, source: string, exit: Exit): RootfsError {
  const { stderr } = exit;
  if (isFaultOfThisMachine(exit) && !SAID_BY_REGISTRY.test(stderr))
    return programFailed('PROGRAM_FAILED', program, source, exit);
  const isLayout = source.startsWith('oci:');
  const found = FAILURES.find(
    ([words, code]) => words.test(stderr) && (!isLayout || /^(ARTIFACT|PROGRAM)_/.test(code)),
  );
  const [, code, advice] = found ?? (isLayout ? OF_LAYOUT : OF_REGISTRY);
  return programFailed(code, program, source, exit, `; ${advice}`);
}
