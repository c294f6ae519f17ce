import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import type { Snapshot } from '../../index.js';
import { absolutePath } from '../../system/arguments.js';
import { withOrderAdvice } from '../argument-order.js';
import { addCopyFlags, type CopyFlags, copyOptions } from '../clone-flags.js';
import { derivedText } from '../clone-text.js';
import { listed } from '../listed.js';
import { details, table } from '../output.js';
import { printable } from '../printable.js';
import { inSession } from '../session.js';
import { formatSize } from '../sizes.js';
import { formatTime } from '../times.js';

export function addSnapshot(program: Command): void {
  program
    .command('snapshot')
    .description("Save a VM's disk as it is now, with its memory and state files.")
    .argument('<vm>', "the VM's id")
    .argument('<name>', "the snapshot's name")
    .argument('[file...]', 'files to save with the disk')
    .option('--refuse-in-use', 'fail if a process has the disk open (a paused VM does)')
    .addHelpText(
      'after',
      `
JSON: { "name", "path", "vmId", "stack"?, "createdAt",
  "files": [{ "name", "sizeBytes", "sha256" }], "strategies" }

Example:
  microvm-rootfs snapshot vm-1 before-upgrade memory.snap state.snap`,
    )
    .action((vm: string, name: string, files: string[], flags: { refuseInUse?: boolean }, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const snapshot = await session.during(`keeping ${name}`, (onProgress) =>
          registry.snapshotSlot(vm, name, {
            with: files.map((file) => absolutePath('file', file)),
            ...(flags.refuseInUse ? { refuseInUse: true } : {}),
            signal,
            onProgress,
          }),
        );
        output.print(snapshot, () => snapshotText(snapshot));
      }),
    );
}

export function addSnapshots(program: Command): void {
  program
    .command('snapshots')
    .description('List the snapshots.')
    .addHelpText(
      'after',
      '\nJSON: { "snapshots": [as "snapshot" has them, without "strategies"] }\n\nExample:\n  microvm-rootfs snapshots',
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output } = session;
        const { found: snapshots, failure } = await listed(registry.snapshots());
        if (failure !== undefined && snapshots.length === 0) throw failure;
        snapshots.sort((a, b) => (a.name < b.name ? -1 : 1));
        output.print({ snapshots }, () =>
          table(
            snapshots,
            [
              { title: 'SNAPSHOT', of: ({ name }) => name },
              { title: 'VM', of: ({ vmId }) => vmId },
              { title: 'STACK', of: ({ stack }) => stack ?? '-' },
              { title: 'CREATED', of: ({ createdAt }) => formatTime(createdAt) },
              { title: 'FILES', of: ({ files }) => files.map(({ name }) => name).join(', ') },
            ],
            'No snapshots.',
          ),
        );
        session.tellIfMissing(session.config.snapshotsDir ?? session.config.clonesDir);
        if (failure !== undefined) throw failure;
      }),
    );
}

export function addRestore(program: Command): void {
  addCopyFlags(program.command('restore'))
    .description("Make a VM's disk from a snapshot.")
    .argument('<snapshot>', "the snapshot's name")
    .argument('<vm>', "the VM's id")
    .addHelpText(
      'after',
      '\nJSON: as "fork" has it, "pooled", and "files": paths of the snapshot\'s other files\n\nExample:\n  ' +
        'microvm-rootfs restore before-upgrade vm-2',
    )
    .action((name: string, vm: string, flags: CopyFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const restoring = session.during(`restoring ${name}`, (onProgress) =>
          registry.restoreSnapshot(name, vm, { ...copyOptions(flags), signal, onProgress }),
        );
        const asSnapshot = (path: string) => join(dirname(path), vm);
        const clone = await withOrderAdvice(
          restoring,
          'SNAPSHOT_NOT_FOUND',
          asSnapshot,
          'restore SNAPSHOT VM',
        );
        output.print(clone, () => derivedText(clone));
      }),
    );
}

export function addRmSnapshot(program: Command): void {
  program
    .command('rm-snapshot')
    .description('Remove a snapshot. Disks made from it stay.')
    .argument('<snapshot>', "the snapshot's name")
    .addHelpText(
      'after',
      '\nJSON: { "snapshot", "removed": true if there was one }\n\nExample:\n  microvm-rootfs ' +
        'rm-snapshot before-upgrade',
    )
    .action((name: string, _flags: object, command: Command) =>
      inSession(command, async ({ registry, output }) => {
        const removed = await registry.removeSnapshot(name);
        output.print({ snapshot: name, removed }, () =>
          removed ? `Removed ${printable(name)}.` : `There is no snapshot ${printable(name)}.`,
        );
      }),
    );
}

export function snapshotText({ name, path, vmId, stack, files }: Snapshot): string {
  const facts = details({ Snapshot: name, VM: vmId, Stack: stack, Path: path });
  const list = table(files, [
    { title: 'FILE', of: ({ name }) => name },
    { title: 'SIZE', right: true, of: ({ sizeBytes }) => formatSize(sizeBytes) },
    { title: 'SHA-256', of: ({ sha256 }) => sha256 },
  ]);
  return `${facts}\n\n${list}`;
}
