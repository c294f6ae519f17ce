// How a SHA-256 is written: 64 lower-case hex digits, and in OCI's documents as `sha256:…`.

export function isSha256(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
}

export function isSha256Digest(value: unknown): value is string {
  return typeof value === 'string' && value.startsWith('sha256:') && isSha256(value.slice('sha256:'.length));
}
