import { stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { hashFile } from '../../index.js';
import { ArgumentFailures } from '../argument-failures.js';
import { inSession } from '../session.js';

interface Hashed {
  readonly path: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

export function addHash(program: Command): void {
  program
    .command('hash')
    .description('Print the SHA-256 of files, as sha256sum does.')
    .argument('<file...>', 'the files to hash')
    .addHelpText(
      'after',
      `
JSON: { "files": [{ "path", "sha256", "sizeBytes" }] }

Examples:
  microvm-rootfs hash memory.snap state.snap
  microvm-rootfs hash *.snap | sha256sum --check`,
    )
    .action((paths: string[], _flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { output, signal } = session;
        const files: Hashed[] = [];
        const failures = new ArgumentFailures(signal);
        try {
          for (const path of paths)
            await failures.attempt(path, async () => {
              const sha256 = await session.during(`hashing ${path}`, (onProgress) =>
                hashFile(path, { signal, onProgress }),
              );
              const file = { path, sha256, sizeBytes: (await stat(path)).size };
              files.push(file);
              output.line(() => line(file));
            });
        } finally {
          // Print what was hashed, even if some file cannot be.
          if (files.length > 0) output.print({ files }, () => '');
        }
        failures.throwIfAny();
      }),
    );
}

/** In sha256sum's format, which marks names with odd characters by a backslash before the digest. */
function line({ path, sha256 }: Hashed): string {
  const escaped = path.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\r', '\\r');
  return `${escaped === path ? '' : '\\'}${sha256}  ${escaped}`;
}
