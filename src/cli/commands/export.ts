import type { Command } from 'commander';
import { RootfsError } from '../../index.js';
import { absolutePath } from '../../system/arguments.js';
import { addCopyFlags, type CopyFlags, copyOptions } from '../clone-flags.js';
import { leftText } from '../clone-text.js';
import { details } from '../output.js';
import { inSession } from '../session.js';
import { formatSize } from '../sizes.js';

export function addExport(program: Command): void {
  addCopyFlags(program.command('export'))
    .description("Give a VM's clone a path in another folder: a jailer's chroot.")
    .argument('<vm>', "the VM's id")
    .argument('<path>', 'the path to give it')
    .addHelpText(
      'after',
      `
JSON: { "path", "sizeBytes", "strategy", "attempts": [{ "strategy", "code" }] }

Example:
  microvm-rootfs export vm-1 /srv/jailer/firecracker/vm-1/root/rootfs.ext4 --owner 1000:1000`,
    )
    .action((vm: string, path: string, flags: CopyFlags, command: Command) =>
      inSession(command, async (session) => {
        // It means a folder, which is not what would be made.
        if (path.endsWith('/'))
          throw new RootfsError(
            'INVALID_ARGUMENT',
            `${path} ends in a slash: give the path of the file itself`,
          );
        const { registry, output, signal } = session;
        const exported = await session.during(`exporting the clone of ${vm}`, () =>
          registry.exportTo(vm, absolutePath('path', path), { ...copyOptions(flags), signal }),
        );
        output.print(exported, () =>
          details({
            Path: exported.path,
            Size: formatSize(exported.sizeBytes),
            How: exported.strategy,
            'Tried first': leftText(exported.attempts),
          }),
        );
      }),
    );
}
