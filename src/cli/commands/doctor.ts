import type { Command } from 'commander';
import { repeatedFlags } from '../config-file.js';
import { examine } from '../doctor/examine.js';
import type { Finding, Status } from '../doctor/finding.js';
import { EXIT } from '../exit-codes.js';
import { count } from '../output.js';
import { printable } from '../printable.js';
import { AlreadyReported } from '../report-error.js';
import { inSession } from '../session.js';

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('Report whether this host will be fast and safe, and what to do about it.')
    .addHelpText(
      'after',
      `
Reflinks, hardlinks and leases are tried, and a clone is measured beside cp, in folders of its own
that are removed again. Exit status 1 if something is a "fail".

JSON: { "findings": [{ "check", "status": "ok"|"warn"|"fail", "detail", "fix"? }] }

Example:
  microvm-rootfs doctor --templates /srv/templates --clones /srv/vms`,
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { output, config, signal } = session;
        const sameFlags = repeatedFlags(config, command.optsWithGlobals(), process.env);
        const findings = await session.during('looking', () => examine(config, sameFlags, signal));
        output.print({ findings }, () => text(findings));
        if (findings.some(({ status }) => status === 'fail')) throw new AlreadyReported(EXIT.failed);
      }),
    );
}

const COLOURS: Readonly<Record<Status, number>> = { ok: 32, warn: 33, fail: 31 };

function text(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap(({ check, status, detail, fix }) => [
    `${coloured(status)}  ${check.padEnd(width)}  ${printable(detail)}`,
    ...(fix === undefined ? [] : [`${' '.repeat(width + 8)}fix: ${printable(fix)}`]),
  ]);
  const bad = (status: Status) => findings.filter((finding) => finding.status === status).length;
  return [...lines, '', `${count(bad('fail'), 'failure')}, ${count(bad('warn'), 'warning')}.`].join('\n');
}

function coloured(status: Status): string {
  const word = status.padEnd(4);
  const wanted = process.stdout.isTTY && !process.env.NO_COLOR;
  return wanted ? `\u001b[${COLOURS[status]}m${word}\u001b[0m` : word;
}
