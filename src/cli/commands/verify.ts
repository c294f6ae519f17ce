import type { Command } from 'commander';
import type { VerifyReport } from '../../index.js';
import { EXIT } from '../exit-codes.js';
import { count, table } from '../output.js';
import { Told } from '../report-error.js';
import { inSession } from '../session.js';

interface VerifyFlags {
  readonly withClones?: boolean;
}

export function addVerify(program: Command): void {
  program
    .command('verify')
    .description('Read templates and sealed images again, and tell which differ from their digests.')
    .option('--with-clones', 'also clones that share nothing; one that its guest wrote to differs')
    .addHelpText(
      'after',
      `
Exit status 1 if something differs.

JSON: { "templates", "sealedImages", "clones", "differences": [{ "kind", "path", "expected", "found" }] }

Example:
  microvm-rootfs verify`,
    )
    .action((flags: VerifyFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const clones = flags.withClones === true;
        const report = await session.during('verifying', (onProgress) =>
          registry.verify({ clones, signal, onProgress }),
        );
        output.print(report, () => text(report));
        if (report.differences.length > 0) throw new Told(EXIT.failed);
      }),
    );
}

function text({ templates, sealedImages, clones, differences }: VerifyReport): string {
  const read = `Read ${count(templates, 'template')}, ${count(sealedImages, 'sealed image')}, ${count(clones, 'clone')}`;
  if (differences.length === 0) return `${read}: all as they should be.`;
  const list = table(differences, [
    { title: 'KIND', of: ({ kind }) => kind },
    { title: 'PATH', of: ({ path }) => path },
    { title: 'EXPECTED', of: ({ expected }) => expected },
    { title: 'FOUND', of: ({ found }) => found },
  ]);
  return `${list}\n${read}: ${count(differences.length, 'difference')}.`;
}
