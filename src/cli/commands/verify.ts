import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { RootfsError, type Snapshot, type VerifyReport } from '../../index.js';
import { ArgumentFailures } from '../argument-failures.js';
import { EXIT } from '../exit-codes.js';
import { count, table } from '../output.js';
import { printable } from '../printable.js';
import { AlreadyReported } from '../report-error.js';
import { inSession, reported, type Session } from '../session.js';

interface VerifyFlags {
  readonly withClones?: boolean;
}

export function addVerify(program: Command): void {
  program
    .command('verify')
    .description(
      'Read templates and sealed images, or snapshots, again and report those that differ from their digests.',
    )
    .argument('[snapshot...]', 'verify these snapshots instead')
    .option(
      '--with-clones',
      'also verify clones that share no blocks (one that its guest wrote to will differ)',
    )
    .addHelpText(
      'after',
      `
Exit status 1 if something differs.

JSON: { "templates", "sealedImages", "clones", "templatesNotRead": [paths],
"differences": [{ "kind", "path", "expected", "found" }] };
of snapshots { "snapshots": [as "snapshots" has them] }, those that are intact; if one is not, the
error SNAPSHOT_CORRUPT follows

Examples:
  microvm-rootfs verify
  microvm-rootfs verify before-upgrade`,
    )
    .action((names: string[], flags: VerifyFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const clones = flags.withClones === true;
        if (names.length > 0) {
          if (clones) command.error("error: option '--with-clones' cannot be used with names of snapshots");
          return verifySnapshots(session, names);
        }
        const { templateDir } = session.config;
        // A check of nothing must not look like one that passed.
        if (!existsSync(templateDir))
          throw new RootfsError('ENOENT', `there is no folder ${templateDir}: correct --templates`);
        const { report, throwIfFailed } = await reported(
          session.during('verifying', (onProgress) => registry.verify({ clones, signal, onProgress })),
        );
        output.print(report, () => text(report));
        throwIfFailed();
        if (report.differences.length > 0) throw new AlreadyReported(EXIT.failed);
      }),
    );
}

async function verifySnapshots(session: Session, names: string[]): Promise<void> {
  const { registry, output, signal } = session;
  const snapshots: Snapshot[] = [];
  const failures = new ArgumentFailures(signal);
  try {
    for (const name of names)
      await failures.attempt(name, async () => {
        const snapshot = await session.during(`verifying ${name}`, (onProgress) =>
          registry.verifySnapshot(name, { signal, onProgress }),
        );
        snapshots.push(snapshot);
        output.line(() => `${printable(name)}: all as it was.`);
      });
  } finally {
    if (snapshots.length > 0) output.print({ snapshots }, () => '');
  }
  failures.throwIfAny('SNAPSHOT_CORRUPT');
}

function text({ templates, sealedImages, clones, templatesNotRead, differences }: VerifyReport): string {
  const notRead = templatesNotRead.map(
    (path) => `\nNot read: ${printable(path)}, whose digest as it is now is not known ("stacks" learns it).`,
  );
  const read =
    `Read ${count(templates, 'template')}, ${count(sealedImages, 'sealed image')}, ` +
    `${count(clones, 'clone')}`;
  if (differences.length === 0) return `${read}: all as they should be.${notRead.join('')}`;
  const list = table(differences, [
    { title: 'KIND', of: ({ kind }) => kind },
    { title: 'PATH', of: ({ path }) => path },
    { title: 'EXPECTED', of: ({ expected }) => expected },
    { title: 'FOUND', of: ({ found }) => found },
  ]);
  return `${list}\n${read}: ${count(differences.length, 'difference')}.${notRead.join('')}`;
}
