// Parses platforms as container images name them.

import { show } from '../system/arguments.js';
import { invalidArgument } from '../system/errors.js';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

// Go names for architectures that Node names differently.
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

/** Parses `linux/arm64` or `linux/arm/v7`. Defaults to this host's platform. Throws `INVALID_ARGUMENT`. */
export function parsePlatform(platform: unknown): Platform {
  if (platform === undefined)
    return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch };
  const parts = typeof platform === 'string' ? platform.split('/') : [];
  const [os = '', architecture = '', variant] = parts;
  if (
    parts.length > 3 ||
    ![os, architecture, variant ?? 'v'].every((part) => /^[a-z0-9][a-z0-9_.-]*$/.test(part))
  )
    throw invalidArgument(`platform must be like linux/arm64 or linux/arm/v7, got ${show(platform)}`);
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}

export function platformName({ os, architecture, variant }: Platform): string {
  return [os, architecture, variant].filter((part) => part !== undefined && part !== '').join('/');
}
