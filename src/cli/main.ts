#!/usr/bin/env node
// The command `microvm-rootfs`. See docs/cli.md.
import { buildProgram } from './program.js';
import { reportError, reportWarning } from './report-error.js';

// A warning of the library is for whoever typed the command; Node's own form of it is not.
process.removeAllListeners('warning');
process.on('warning', (warning) => reportWarning(warning, style()));

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // Whoever read from us (`| head`) has seen enough.
  if (error.code !== 'EPIPE') endBecauseOf(error);
});
// There is nobody left to tell.
process.stderr.on('error', () => {});

/** Before the arguments are parsed, which may be what fails. */
function style() {
  const words = process.argv.slice(2);
  const end = words.indexOf('--');
  const flags = end < 0 ? words : words.slice(0, end);
  return { json: flags.includes('--json'), verbose: flags.includes('--verbose') };
}

buildProgram().parseAsync().catch(endBecauseOf);

/** The first failure decides the exit status: help that cannot be written ended well before that. */
function endBecauseOf(error: unknown): void {
  const status = reportError(error, style());
  if (status !== 0) process.exitCode ??= status;
}
