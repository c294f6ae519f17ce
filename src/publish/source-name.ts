// What the name of a source says: a path, a container image, or standard input.
import { absolutePath } from '../system/arguments.js';
import { RootfsError } from '../system/errors.js';
import { NO_USER_INFO, userInfoHidden } from '../system/user-info.js';

/** The source value for standard input. */
export const STANDARD_INPUT = '-';

/** What it is called in messages. */
export const INPUT_NAME = 'standard input';

/** Where it is a file, that file. */
export const INPUT_PATH = '/proc/self/fd/0';

/** Matches `docker://…`, `oci:DIR` and `oci:DIR:TAG`. For a file whose name looks like that, write `./oci:…`. */
export function isContainerImage(source: string): boolean {
  return typeof source === 'string' && /^(docker:\/\/|oci:)/.test(source);
}

/** Whether a source is a file or folder. */
export function isPath(source: string): boolean {
  return source !== STANDARD_INPUT && !isContainerImage(source);
}

/** With the path of a file, a folder or a layout made absolute. */
export function absoluteSource(source: string): string {
  if (isPath(source)) return absolutePath('source', source);
  const [, layout] = /^oci:([^:].*)$/s.exec(source) ?? [];
  return layout === undefined ? source : `oci:${absolutePath('source', layout)}`;
}

/**
 * Throws `REFERENCE_INVALID`. Call it before the source appears in a message, or is given to skopeo, whose messages
 * repeat it.
 */
export function requireNoUserInfo(source: unknown): void {
  if (typeof source !== 'string' || !source.startsWith('docker://')) return;
  const hidden = userInfoHidden(source);
  if (hidden !== undefined)
    throw new RootfsError('REFERENCE_INVALID', `invalid source ${hidden}: ${NO_USER_INFO}`);
}
