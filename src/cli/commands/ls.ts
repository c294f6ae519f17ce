import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { listed } from '../listed.js';
import { table } from '../output.js';
import { inSession } from '../session.js';
import { formatSize } from '../sizes.js';
import { formatTime } from '../times.js';

export function addLs(program: Command): void {
  program
    .command('ls')
    .description("List the VMs' clones.")
    .addHelpText(
      'after',
      `
JSON: { "slots": [{ "vmId", "rawId", "path", "health", "stack"?, "sourceSha256"?, "sizeBytes", "grown",
  "createdAt" }] }

Examples:
  microvm-rootfs ls
  microvm-rootfs ls --json | jq -r '.slots[].rawId'`,
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const { found: slots, failure } = await session.during('looking at clones', () =>
          listed(registry.slots({ signal })),
        );
        if (failure !== undefined && (signal.aborted || slots.length === 0)) throw failure;
        slots.sort((a, b) => (a.vmId < b.vmId ? -1 : 1));
        output.print({ slots }, () =>
          table(
            slots,
            [
              { title: 'VM', of: ({ rawId }) => rawId },
              { title: 'STACK', of: ({ stack }) => stack ?? '-' },
              { title: 'SIZE', right: true, of: ({ sizeBytes }) => formatSize(sizeBytes) },
              { title: 'HEALTH', of: ({ health }) => health },
              { title: 'CREATED', of: ({ createdAt }) => formatTime(createdAt) },
              { title: 'SHA-256', of: ({ sourceSha256 }) => sourceSha256?.slice(0, 12) ?? '-' },
            ],
            existsSync(registry.config.clonesDir)
              ? `No clones in ${registry.config.clonesDir}.`
              : `There is no folder ${registry.config.clonesDir}.`,
          ),
        );
        if (failure !== undefined) throw failure;
      }),
    );
}
