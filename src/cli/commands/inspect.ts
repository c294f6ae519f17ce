import type { Command } from 'commander';
import { RootfsError } from '../../index.js';
import { facts } from '../facts.js';
import { planned } from '../planned.js';
import { inSession } from '../session.js';

export function addInspect(program: Command): void {
  program
    .command('inspect')
    .description("Show all that is known of a VM's clone.")
    .argument('<vm>', "the VM's id")
    .addHelpText('after', "\nJSON: the library's SlotDetails\n\nExample:\n  microvm-rootfs inspect vm-1")
    .action((vm: string, _flags: object, command: Command) =>
      inSession(command, async ({ registry, output }) => {
        const slot = await planned(registry).slot(vm);
        if (slot === undefined) throw new RootfsError('SLOT_NOT_FOUND', `VM ${vm} has no clone`);
        output.print(slot, () => facts(slot));
      }),
    );
}
