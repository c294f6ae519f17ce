import type { Command } from 'commander';

/** Commander's own help command prints the program's help for an unknown command. */
export function addHelp(program: Command): void {
  program
    .helpCommand(false)
    .command('help')
    .description('Print help, or that of a command.')
    .argument('[command...]', "the command's name: store create")
    .addHelpText('after', '\nExample:\n  microvm-rootfs help store create')
    .action((names: string[]) => {
      let named = program;
      for (const name of names) {
        const next = named.commands.find((each) => each.name() === name);
        if (next === undefined) program.error(`error: unknown command '${name}'`);
        named = next;
      }
      named.help();
    });
}
