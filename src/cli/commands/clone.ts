import { basename, dirname, join } from 'node:path';
import type { Command } from 'commander';
import { withOrderAdvice } from '../argument-order.js';
import { addCloneFlags, type CloneFlags, cloneOptions } from '../clone-flags.js';
import { cloneText } from '../clone-text.js';
import { inSession } from '../session.js';

export function addClone(program: Command): void {
  addCloneFlags(program.command('clone'))
    .description('Give a VM its own clone of a template, or show the one that it has.')
    .argument('<vm>', "the VM's id")
    .argument('<stack>', "the template's name")
    .addHelpText(
      'after',
      `
JSON: { "vmId", "stack", "path", "sourceSha256", "sizeBytes", "strategy", "sharesTemplateInode",
        "reused", "pooled", "attempts": [{ "strategy", "code" }] }

Examples:
  microvm-rootfs clone vm-1 debian-12 --writable
  microvm-rootfs clone vm-1 debian-12 --size 8G --owner 1000:1000
  disk=$(microvm-rootfs clone vm-1 debian-12 --writable --json | jq -r .path)`,
    )
    .action((vm: string, stack: string, flags: CloneFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const cloning = session.during(`cloning ${stack}`, () =>
          registry.cloneForVm(vm, stack, { ...cloneOptions(flags), signal }),
        );
        const asStack = (path: string) => join(dirname(dirname(path)), vm, basename(path));
        const clone = await withOrderAdvice(cloning, 'STACK_NOT_FOUND', asStack, 'clone VM STACK');
        output.print(clone, () => cloneText(clone));
      }),
    );
}
