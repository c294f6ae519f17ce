import type { Command } from 'commander';
import { table } from '../output.js';
import { inSession, reported } from '../session.js';
import { formatSize } from '../sizes.js';

export function addPool(program: Command): void {
  program
    .command('pool')
    .description('List the ready slots in the pool, whichever process made them.')
    .addHelpText(
      'after',
      `
JSON: { "readySlots": [{ "stack", "snapshot"?, "sourceSha256", "sizeBytes", "owner"?, "mode"?, "count" }] }

Example:
  microvm-rootfs pool`,
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output } = session;
        const { report: readySlots, throwIfFailed } = await reported(registry.readySlots());
        if (readySlots.length === 0) throwIfFailed();
        output.print({ readySlots }, () =>
          table(
            readySlots,
            [
              { title: 'STACK', of: ({ stack }) => stack || '-' },
              { title: 'SNAPSHOT', of: ({ snapshot }) => snapshot ?? '-' },
              { title: 'SIZE', right: true, of: ({ sizeBytes }) => formatSize(sizeBytes) },
              {
                title: 'OWNER',
                of: ({ owner }) => (owner === undefined ? '-' : `${owner.uid}:${owner.gid}`),
              },
              { title: 'MODE', of: ({ mode }) => (mode === undefined ? '-' : `0${mode.toString(8)}`) },
              { title: 'READY', right: true, of: ({ count }) => `${count}` },
            ],
            'No ready slots.',
          ),
        );
        session.tellIfMissing(registry.config.clonesDir);
        throwIfFailed();
      }),
    );
}
