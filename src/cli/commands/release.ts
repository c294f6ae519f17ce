import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { ArgumentFailures } from '../argument-failures.js';
import { table } from '../output.js';
import { inSession } from '../session.js';

interface ReleaseFlags {
  readonly refuseInUse?: boolean;
  readonly durable?: boolean;
}

export function addRelease(program: Command): void {
  program
    .command('release')
    .description("Remove VMs' clones. A missing clone is not an error.")
    .argument('<vm...>', 'their ids')
    .option('--refuse-in-use', 'fail if a process has the clone open')
    .option('--durable', 'flush to disk, so that a power cut does not bring it back')
    .addHelpText(
      'after',
      `
A failure does not stop the others.

JSON: { "released": [{ "vmId", "released" }] }; "released" is false where there was none

Examples:
  microvm-rootfs release vm-1 vm-2
  microvm-rootfs release vm-1 --refuse-in-use`,
    )
    .action((vms: string[], flags: ReleaseFlags, command: Command) =>
      inSession(command, async ({ registry, output, signal }) => {
        const { refuseInUse = false, durable = false } = flags;
        const released: { vmId: string; released: boolean }[] = [];
        const failures = new ArgumentFailures(signal);
        try {
          for (const vmId of vms) {
            signal.throwIfAborted();
            await failures.attempt(vmId, async () => {
              released.push({ vmId, released: await registry.release(vmId, { refuseInUse, durable }) });
            });
          }
        } finally {
          // Print what was done, even if another one failed.
          if (released.length > 0)
            output.print({ released }, () =>
              table(released, [
                { title: 'VM', of: ({ vmId }) => vmId },
                { title: 'RESULT', of: (slot) => (slot.released ? 'released' : 'had no clone') },
              ]),
            );
        }
        failures.throwIfAny();
        if (!existsSync(registry.config.clonesDir))
          output.aside(`there is no folder ${registry.config.clonesDir}`);
      }),
    );
}
