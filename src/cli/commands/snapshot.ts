import { resolve } from 'node:path';
import type { Command } from 'commander';
import { addCloneFlags, type CloneFlags, cloneOptions } from '../clone-flags.js';
import { cloneText } from '../clone-text.js';
import { facts } from '../facts.js';
import { planned } from '../planned.js';
import { inSession } from '../session.js';

export function addSnapshot(program: Command): void {
  program
    .command('snapshot')
    .description("Keep a VM's clone as it is now, with files that belong to it: memory, state.")
    .argument('<vm>', "the VM's id")
    .argument('<name>', 'how the snapshot is to be called')
    .argument('[file...]', 'files that go with it')
    .addHelpText(
      'after',
      `
JSON: the library's snapshot

Example:
  microvm-rootfs snapshot vm-1 before-upgrade memory.snap state.snap`,
    )
    .action((vm: string, name: string, files: string[], _flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const snapshot = await session.during(`keeping ${name}`, (onProgress) =>
          planned(registry).snapshotSlot(vm, name, {
            with: files.map((file) => resolve(file)),
            signal,
            onProgress,
          }),
        );
        output.print(snapshot, () => facts(snapshot));
      }),
    );
}

export function addSnapshots(program: Command): void {
  program
    .command('snapshots')
    .description('List the snapshots.')
    .addHelpText(
      'after',
      '\nJSON: { "snapshots": [the library\'s snapshot] }\n\nExample:\n  microvm-rootfs snapshots',
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async ({ registry, output }) => {
        const snapshots = await planned(registry).snapshots();
        output.print({ snapshots }, () => snapshots.map(facts).join('\n\n') || 'No snapshots.');
      }),
    );
}

export function addRestore(program: Command): void {
  addCloneFlags(program.command('restore'))
    .description('Give a VM a clone of what a snapshot keeps.')
    .argument('<name>', "the snapshot's name")
    .argument('<vm>', 'the VM that is to have it')
    .addHelpText(
      'after',
      '\nJSON: as "clone" has it\n\nExample:\n  microvm-rootfs restore before-upgrade vm-2',
    )
    .action((name: string, vm: string, flags: CloneFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const clone = await session.during(`restoring ${name}`, () =>
          planned(registry).restoreSnapshot(name, vm, { ...cloneOptions(flags), signal }),
        );
        output.print(clone, () => cloneText(clone));
      }),
    );
}

export function addRmSnapshot(program: Command): void {
  program
    .command('rm-snapshot')
    .description('Remove a snapshot. Clones that were made of it stay.')
    .argument('<name>', "the snapshot's name")
    .addHelpText(
      'after',
      '\nJSON: { "removed": name }\n\nExample:\n  microvm-rootfs rm-snapshot before-upgrade',
    )
    .action((name: string, _flags: object, command: Command) =>
      inSession(command, async ({ registry, output }) => {
        await planned(registry).removeSnapshot(name);
        output.print({ removed: name }, () => `Removed ${name}.`);
      }),
    );
}
