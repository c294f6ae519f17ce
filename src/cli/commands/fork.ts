import type { Command } from 'commander';
import { addCopyFlags, type CopyFlags, copyOptions } from '../clone-flags.js';
import { derivedText } from '../clone-text.js';
import { inSession } from '../session.js';

export function addFork(program: Command): void {
  addCopyFlags(program.command('fork'))
    .description("Copy another VM's disk, as it is now, to a new VM.")
    .argument('<from>', 'the id of the VM to copy')
    .argument('<vm>', "the new VM's id")
    .option('--refuse-in-use', 'fail if a process has the disk open (a paused VM does)')
    .addHelpText(
      'after',
      '\nJSON: { "vmId", "stack"?, "path", "sourceSha256", "sizeBytes", "strategy", "attempts", ' +
        '"extents"? }\n\nExample:\n  microvm-rootfs fork vm-1 vm-2',
    )
    .action((from: string, vm: string, flags: CopyFlags & { refuseInUse?: boolean }, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const clone = await session.during(`forking ${from}`, () =>
          registry.forkSlot(from, vm, {
            ...copyOptions(flags),
            ...(flags.refuseInUse ? { refuseInUse: true } : {}),
            signal,
          }),
        );
        output.print(clone, () => derivedText(clone));
      }),
    );
}
