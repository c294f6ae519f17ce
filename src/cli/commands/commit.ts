import type { Command } from 'commander';
import { inSession } from '../session.js';
import { stackText } from './publish.js';

export function addCommit(program: Command): void {
  program
    .command('commit')
    .description("Make a template from a VM's clone.")
    .argument('<vm>', "the VM's id")
    .argument('<name>', 'the name of the template')
    .option('--replace', 'replace an existing template')
    .addHelpText(
      'after',
      '\nJSON: { "name", "templatePath", "sizeBytes", "sha256", "replaced", "format", "image"? }\n\nExample:\n  ' +
        'microvm-rootfs commit vm-1 debian-12-ready',
    )
    .action((vm: string, name: string, { replace = false }: { replace?: boolean }, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const stack = await session.during(`making ${name} of the clone of ${vm}`, (onProgress) =>
          registry.commitSlot(vm, name, { replace, signal, onProgress }),
        );
        output.print(stack, () => stackText(stack));
      }),
    );
}
