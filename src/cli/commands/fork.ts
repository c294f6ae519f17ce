import type { Command } from 'commander';
import { addCloneFlags, type CloneFlags, cloneOptions } from '../clone-flags.js';
import { cloneText } from '../clone-text.js';
import { planned } from '../planned.js';
import { inSession } from '../session.js';

export function addFork(program: Command): void {
  addCloneFlags(program.command('fork'))
    .description("Give a VM a clone of another VM's clone, as that is now.")
    .argument('<from>', 'the VM that has a clone')
    .argument('<vm>', 'the VM that is to have one')
    .addHelpText('after', '\nJSON: as "clone" has it\n\nExample:\n  microvm-rootfs fork vm-1 vm-2')
    .action((from: string, vm: string, flags: CloneFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const clone = await session.during(`forking ${from}`, () =>
          planned(registry).forkSlot(from, vm, { ...cloneOptions(flags), signal }),
        );
        output.print(clone, () => cloneText(clone));
      }),
    );
}
