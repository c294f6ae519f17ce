#!/usr/bin/env node
// The command `microvm-rootfs`. See docs/cli.md.
import type { Command } from 'commander';
import { buildProgram } from './program.js';
import { interruptionOf, reportError, reportWarning } from './report-error.js';

// Print the library's warnings in our own form rather than Node's.
process.removeAllListeners('warning');
process.on('warning', (warning) => reportWarning(warning, style()));

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The reader (`| head`) has closed the pipe.
  if (error.code !== 'EPIPE') endBecauseOf(error);
});
// Nobody reads what would be printed.
process.stderr.on('error', () => {});

/** Before the arguments are parsed, which may be what fails. */
function style() {
  const words = process.argv.slice(2);
  const end = words.indexOf('--');
  const flags = end < 0 ? words : words.slice(0, end);
  return { json: flags.includes('--json'), verbose: flags.includes('--verbose') };
}

const program = buildProgram();
run().catch(endBecauseOf);

async function run(): Promise<void> {
  // Node reads bytes that are no UTF-8 as U+FFFD: two VMs would have one id.
  const unreadable = process.argv.slice(2).find((word) => word.includes('\ufffd'));
  if (unreadable !== undefined) program.error(`error: '${unreadable}' is not UTF-8, or has U+FFFD in it`);
  await program.parseAsync();
}

/** The name of the command, for messages: `microvm-rootfs store create`. */
function commandTyped(): string {
  let command: Command = program;
  const path = [program.name()];
  for (const word of process.argv.slice(2)) {
    const next = command.commands.find((each) => each.name() === word);
    if (next === undefined) continue;
    command = next;
    path.push(word);
  }
  return path.join(' ');
}

/** The first failure decides the exit status: help that cannot be written ended well before that. */
function endBecauseOf(error: unknown): void {
  const status = reportError(error, style(), commandTyped());
  if (status !== 0) process.exitCode ??= status;
  interruptionOf(error)?.dieOfIt();
}
