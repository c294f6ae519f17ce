import { join } from 'node:path';
import { Argument, type Command } from 'commander';
import { DEFAULT_SNAPSHOTS_FOLDER, STATE_FOLDER } from '../../system/state-folder.js';
import { candidates, type Shell, scriptFor } from '../completion.js';
import { effectiveConfig } from '../config-file.js';

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
    .action(async (words: string[]) => {
      const found = await candidates(program, words, async (flags) => {
        const { templateDir = '', clonesDir = '', snapshotsDir } = await effectiveConfig(flags, process.env);
        const ownSnapshots = join(clonesDir, STATE_FOLDER, DEFAULT_SNAPSHOTS_FOLDER);
        return { templateDir, clonesDir, snapshotsDir: snapshotsDir ?? ownSnapshots };
      });
      process.stdout.write(found.map((word) => `${word}\n`).join(''));
    });
}
