import { Argument, type Command } from 'commander';
import { candidates, type Shell, scriptFor } from '../completion.js';
import { effectiveConfig } from '../config-file.js';
import type { GlobalFlags } from '../session.js';

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .description('Print a script that completes commands, options, templates and VMs in your shell.')
    .addArgument(new Argument('<shell>', 'which shell').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      `
Examples:
  source <(microvm-rootfs completion bash)
  microvm-rootfs completion zsh > ~/.zfunc/_microvm-rootfs
  microvm-rootfs completion fish > ~/.config/fish/completions/microvm-rootfs.fish`,
    )
    .action((shell: Shell) => {
      process.stdout.write(scriptFor(shell));
    });

  // What those scripts call, with the words before the cursor.
  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .action(async (words: string[], _flags: object, command: Command) => {
      const flags: GlobalFlags = command.optsWithGlobals();
      const { templateDir = '', clonesDir = '' } = await effectiveConfig(flags, process.env);
      const found = await candidates(program, words, { templateDir, clonesDir });
      process.stdout.write(found.map((word) => `${word}\n`).join(''));
    });
}
