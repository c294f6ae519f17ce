// Checks the name of a stack: it becomes the name of a folder.
import { isPath, isWellFormed, NAME_BYTES_LIMIT, show } from '../system/arguments.js';
import { RootfsError } from '../system/errors.js';

/** A checked name of a stack: one path component. */
export type StackName = string & { readonly StackName: unique symbol };

/** Throws `INVALID_STACK_NAME` unless the name is one path component without a leading dot. */
export function parseStackName(name: unknown): StackName {
  if (isStackName(name)) return name;
  const why =
    typeof name === 'string'
      ? `it must be the name of a folder, of at most ${NAME_BYTES_LIMIT} bytes, without "/", NUL or a leading dot`
      : 'it must be a string';
  throw new RootfsError('INVALID_STACK_NAME', `invalid stack name ${show(name)}: ${why}`);
}

export function isStackName(name: unknown): name is StackName {
  const isComponent = isPath(name) && !name.includes('/') && !name.startsWith('.') && isWellFormed(name);
  return isComponent && Buffer.byteLength(name) <= NAME_BYTES_LIMIT;
}
