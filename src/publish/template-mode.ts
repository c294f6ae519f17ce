// Who may read a template: every VM, unless what it was made of was private to one.

const PUBLIC_MODE = 0o444;
const PRIVATE_MODE = 0o400;

/** Whether others may not read an image with this mode. */
export function isPrivate(mode: number): boolean {
  return (mode & 0o004) === 0;
}

/** Never what the umask makes of it. */
export function templateMode(keepsPrivate: boolean): number {
  return keepsPrivate ? PRIVATE_MODE : PUBLIC_MODE;
}
