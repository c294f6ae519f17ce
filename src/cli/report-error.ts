// Reports an error: one line on stderr, with --json one line of JSON, and an exit status for its kind.
import { CommanderError } from 'commander';
import { RootfsError } from '../index.js';
import { adviceOf } from '../system/errno-advice.js';
import { errnoName } from '../system/errno-names.js';
import { EXIT, exitCodeOf } from './exit-codes.js';
import { Interrupted } from './interruption.js';
import { printable, printableJson } from './printable.js';

interface ReportStyle {
  readonly json: boolean;
  readonly verbose: boolean;
}

/** The command has printed what is wrong; only the exit status is left to set. */
export class AlreadyReported extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`exit status ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/** Writes it, and returns the exit status. `command` is what was typed, without options and arguments. */
export function reportError(error: unknown, style: ReportStyle, command: string): number {
  if (error instanceof AlreadyReported) return error.exitCode;
  // Help and the version were asked for and printed.
  if (error instanceof CommanderError && error.exitCode === 0) return EXIT.ok;
  const { json, verbose } = style;
  // Without a command, help is printed on stderr.
  if (error instanceof CommanderError && error.code === 'commander.help' && !json) return EXIT.usage;
  const text = json
    ? printableJson({ error: document(error, verbose) })
    : lines(error, verbose, command).join('\n');
  process.stderr.write(`${text}\n`);
  return exitStatus(error);
}

/** A warning of the library, or of Node's. */
export function reportWarning(warning: Error, { json }: ReportStyle): void {
  const code = codeOf(warning);
  const message = asTyped(warning.message);
  const text = json
    ? printableJson({ warning: { code, message } })
    : `microvm-rootfs: warning: ${printable(message)}`;
  process.stderr.write(`${text}\n`);
}

function exitStatus(error: unknown): number {
  if (error instanceof CommanderError) return EXIT.usage;
  return interruptionOf(error)?.exitCode ?? exitCodeOf(codeOf(error));
}

export function interruptionOf(error: unknown): Interrupted | undefined {
  return chain(error).find((link) => link instanceof Interrupted);
}

function codeOf(error: unknown): string {
  if (error instanceof CommanderError) return 'USAGE';
  if (error instanceof Interrupted) return 'ABORT_ERR';
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string')
    return error.code;
  // An error of the addon.
  if (isSystemError(error)) return errnoName(error.errno);
  return 'UNEXPECTED';
}

function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  if (isSystemError(error) && message === error.syscall)
    return [error.syscall, error.path, error.dest].filter((part) => part).join(' ');
  if (error instanceof CommanderError && error.code === 'commander.help')
    return 'a command is missing: see --help';
  if (error instanceof CommanderError) return message.replace(/^error: /, '');
  // Node's own errors begin with the code.
  const code = `${codeOf(error)}: `;
  return asTyped(message.startsWith(code) ? message.slice(code.length) : message);
}

const FLAGS: Readonly<Record<string, string>> = {
  sizeBytes: '--size',
  includeMounts: '--include-mounts',
  'force: true': '--force',
  'replace: true': '--replace',
  'writable: true': '--writable',
  'writable: false': '--read-only',
};

const COMMANDS: Readonly<Record<string, string>> = {
  pullStack: 'microvm-rootfs pull',
  pullSnapshot: 'microvm-rootfs pull-snapshot',
};

/** The library's messages name its options and methods; the user of a command knows them as flags and commands. */
function asTyped(message: string): string {
  return message
    .replace(
      /\b(?:sizeBytes|includeMounts|(?:force|replace|writable): (?:true|false))\b/g,
      (option) => FLAGS[option] ?? option,
    )
    .replace(/\bplatform: '([^']+)'/g, '--platform $1')
    .replace(/\braise (limits\.\w+)/, 'publish it with the library, and raise $1')
    .replace(/\bpublishStack\('([^']+)', '([^']+)'\)/g, 'microvm-rootfs publish $1 $2')
    .replace(/\b(?:pullStack|pullSnapshot)\b/g, (method) => COMMANDS[method] ?? method)
    .replace(/\bcall (recover)\(\)/g, 'run microvm-rootfs $1')
    .replace(/\b(recover|verify|stacks|snapshots)\(\)/g, 'microvm-rootfs $1');
}

/** With what to do, where the system failed a call of the command's own. The library's errors say it themselves. */
function adviceFor(error: unknown): string {
  if (error instanceof RootfsError || !isSystemError(error)) return '';
  const advice = adviceOf(codeOf(error), error.syscall);
  return advice === undefined ? '' : `; ${advice}`;
}

function document(error: unknown, verbose: boolean): object {
  const { errno, syscall, path, dest } = (error ?? {}) as Partial<RootfsError>;
  const causes = chain(error)
    .slice(1)
    .map((cause) => ({ code: codeOf(cause), message: messageOf(cause) }));
  return {
    code: codeOf(error),
    message: messageOf(error) + adviceFor(error),
    errno,
    syscall,
    path,
    dest,
    ...(verbose && { causes }),
  };
}

function lines(error: unknown, verbose: boolean, command: string): string[] {
  const code = codeOf(error);
  // Keep the line breaks of a message, and escape everything else that is not printable.
  const message = (messageOf(error) + adviceFor(error)).split('\n').map(printable).join('\n');
  const told = [`microvm-rootfs: ${code}: ${message}`];
  if (code === 'USAGE') told.push(`Try '${command} --help'.`);
  if (verbose) {
    for (const cause of chain(error).slice(1))
      told.push(`  caused by ${codeOf(cause)}: ${printable(messageOf(cause))}`);
  }
  // An unexpected error is a bug of ours, so print the stack.
  if (code === 'UNEXPECTED' && error instanceof Error && verbose) told.push(error.stack ?? '');
  return told;
}

function isSystemError(
  error: unknown,
): error is { errno: number; syscall: string; path?: string; dest?: string } {
  const isOfTheSystem = error instanceof Error && 'errno' in error && 'syscall' in error;
  return isOfTheSystem && Number.isInteger(error.errno) && (error.errno as number) < 0;
}

/** An error and what it was caused by; of several causes, all. */
function chain(error: unknown): unknown[] {
  const links: unknown[] = [];
  const visit = (link: unknown) => {
    if (link === undefined || links.includes(link)) return;
    links.push(link);
    if (link instanceof AggregateError) for (const each of link.errors) visit(each);
    if (link instanceof Error) visit(link.cause);
  };
  visit(error);
  return links;
}
