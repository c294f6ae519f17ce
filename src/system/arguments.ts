// Checks what callers pass in.
import { isAbsolute } from 'node:path';
import { abortError, invalidArgument } from './errors.js';

/** The longest name of a file or folder on Linux (NAME_MAX). */
export const NAME_BYTES_LIMIT = 255;

export function isPath(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && !value.includes('\0');
}

/** Whether a string can be written as UTF-8: it has no lone surrogates. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

/** Node reads bytes that are not UTF-8 as U+FFFD, and writes lone surrogates so: that would be another file. */
export function requireUtf8(name: string, path: string): string {
  if (isWellFormed(path) && !path.includes('\ufffd')) return path;
  throw invalidArgument(
    `${name} is ${show(path)}, which is not UTF-8, or has U+FFFD in it: rename that file or folder`,
  );
}

export function requirePath(name: string, value: unknown): string {
  if (isPath(value)) return value;
  throw invalidArgument(`${name} must be a path without NUL, got ${show(value)}`);
}

/** Makes a path absolute, from the present folder of the process, so that a later `chdir` does not change it. */
export function absolutePath(name: string, value: unknown): string {
  const path = requirePath(name, value);
  const folder = isAbsolute(path) ? '' : `${presentFolder(name, path)}/`;
  return requireUtf8(name, `${folder}${path.replace(/^(?:\.\/+)+/, '')}`);
}

/** Not normalised: only the kernel knows where `..` leads after a symbolic link. */
function presentFolder(name: string, path: string): string {
  try {
    const folder = process.cwd();
    return folder === '/' ? '' : folder;
  } catch (error) {
    throw invalidArgument(`${name} is ${show(path)}, but the current folder is gone: give an absolute path`, {
      cause: error,
    });
  }
}

/** A path is made absolute. A plain name stays as it is, to be looked up on PATH. */
export function programPath(name: string, value: unknown): string {
  const program = requirePath(name, value);
  return program.includes('/') ? absolutePath(name, program) : program;
}

/** Checks a size in bytes: a safe integer, not negative. */
export function requireSizeBytes(name: string, value: unknown): number {
  if (isCount(value)) return value;
  throw invalidArgument(`${name} must be a number of bytes, an integer from 0 to 2^53-1, got ${show(value)}`);
}

export function requireCount(name: string, value: unknown): void {
  if (isCount(value)) return;
  throw invalidArgument(`${name} must be an integer of at least 0, got ${show(value)}`);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

export function requireKnownKeys(name: string, value: unknown, known: readonly string[]): void {
  if (typeof value !== 'object' || value === null) {
    throw invalidArgument(`${name} must be an object, got ${show(value)}`);
  }
  for (const key in value) {
    // What a library adds to Object.prototype is nobody's option.
    const isOption = Object.hasOwn(value, key) || !(key in Object.prototype);
    if (isOption && !known.includes(key)) {
      throw invalidArgument(`${name}.${key} is not an option; the options are ${known.join(', ')}`);
    }
  }
}

/**
 * The options that are given, in a plain object. Each is read once, by its name: those of a prototype and getters of a
 * class count, and what the caller changes later does not. To be called before the first `await`.
 */
export function readOptions<T extends object, K extends keyof T & string>(
  name: string,
  value: T,
  known: readonly K[],
): Pick<T, K> {
  requireKnownKeys(name, value, known);
  const options: Partial<Pick<T, K>> = {};
  for (const key of known) {
    const option = value[key];
    if (option !== undefined) options[key] = option;
  }
  return options as Pick<T, K>;
}

export function optionalBoolean(name: string, value: unknown): boolean | undefined {
  if (value === undefined || typeof value === 'boolean') return value;
  throw invalidArgument(`${name} must be true or false, got ${show(value)}`);
}

export function optionalFunction(name: string, value: unknown): void {
  if (value === undefined || typeof value === 'function') return;
  throw invalidArgument(`${name} must be a function, got ${show(value)}`);
}

/** Throws if the signal is already aborted. */
export function optionalSignal(what: string, value: unknown): AbortSignal | undefined {
  if (value === undefined) return undefined;
  if (!(value instanceof AbortSignal)) {
    throw invalidArgument(`signal must be an AbortSignal, got ${show(value)}`);
  }
  if (value.aborted) throw abortError(what, value);
  return value;
}

export function optionalMode(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0o777) return value;
  throw invalidArgument(`mode must be permission bits from 0 to 0o777, got ${show(value)}`);
}

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export function optionalOwner(value: unknown): Owner | undefined {
  if (value === undefined) return undefined;
  const { uid, gid } = readOptions('owner', value as Owner, ['uid', 'gid']);
  return { uid: requireOwnerId('owner.uid', uid), gid: requireOwnerId('owner.gid', gid) };
}

// 2^32-1 means "leave as it is" to chown.
function requireOwnerId(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 0xffff_ffff) return value;
  throw invalidArgument(`${name} must be an integer from 0 to 2^32-2, got ${show(value)}`);
}

/** A value as it appears in a message: short, and without characters that move a terminal's cursor or turn its text. */
export function show(value: unknown): string {
  const text = (
    typeof value === 'string'
      ? JSON.stringify(value.slice(0, 100))
      : typeof value === 'object'
        ? describe(value)
        : String(value)
  ).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, escaped);
  // Not within a character of two halves.
  return text.length <= 80 ? text : `${text.slice(0, 77).replace(/[\ud800-\udbff]$/, '')}...`;
}

function escaped(character: string): string {
  const code = character.codePointAt(0) as number;
  return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`;
}

function describe(value: object | null): string {
  return value === null ? 'null' : Array.isArray(value) ? 'an array' : 'an object';
}
