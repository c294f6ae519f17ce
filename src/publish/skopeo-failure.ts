// Tells from skopeo's words whether the registry, the reference or this machine is at fault.

import type { RootfsError, RootfsErrorCode } from '../system/errors.js';
import { type Exit, isFaultOfThisMachine, programFailed } from '../system/programs.js';

// skopeo uses the same exit status for all of these.
const FAILURES: readonly (readonly [RegExp, RootfsErrorCode, string])[] = [
  [/toomanyrequests|too many requests/i, 'REGISTRY_BUSY', 'try again later, or log in'],
  [/policy\.json/, 'REGISTRY_FAILED', "make skopeo's signature policy readable"],
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

// Registries begin what they say with one of these words. "denied: permission denied" is no fault of this machine.
const SAID_BY_REGISTRY = /\b(denied|unauthorized|toomanyrequests): /i;

export function skopeoFailed(program: string, source: string, exit: Exit): RootfsError {
  const { stderr } = exit;
  if (isFaultOfThisMachine(exit) && !SAID_BY_REGISTRY.test(stderr))
    return programFailed('PROGRAM_FAILED', program, source, exit);
  const [, code, advice] = FAILURES.find(([words]) => words.test(stderr)) ?? [
    undefined,
    'REGISTRY_FAILED' as const,
    'check the network and that the registry runs',
  ];
  return programFailed(code, program, source, exit, `; ${advice}`);
}
