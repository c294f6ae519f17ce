// Completion: the shell scripts pass the words before the cursor, and this file decides what can follow.
import { readdir } from 'node:fs/promises';
import type { Command, Option } from 'commander';
import { printable } from './printable.js';

export type Shell = 'bash' | 'zsh' | 'fish';

const NAME = 'microvm-rootfs';

interface Folders {
  readonly templateDir: string;
  readonly clonesDir: string;
  readonly snapshotsDir: string;
}

/**
 * Where no name of ours fits, the scripts offer file names. A name is data: no script lets its shell expand one, as
 * bash does with the words of `compgen -W`.
 */
const SCRIPTS: Readonly<Record<Shell, string>> = {
  bash: `_microvm_rootfs() {
  local word=\${COMP_WORDS[COMP_CWORD]} words=("\${COMP_WORDS[@]:1:COMP_CWORD}") found=() name quoted
  # The word may be quoted, so names are compared here, as they would be typed.
  [[ $word == -* ]] || words[COMP_CWORD-1]=
  COMPREPLY=()
  mapfile -t found < <(${NAME} __complete -- "\${words[@]}" 2>/dev/null)
  for name in "\${found[@]}"; do
    case $word in
      # After a quote, what is offered goes between quotes as it is.
      [\\'\\"]*)
        if [[ $name != *[!A-Za-z0-9\\ ._,:@%+=/-]* && $name == "\${word:1}"* ]]; then COMPREPLY+=("$name"); fi
        ;;
      *)
        printf -v quoted %q "$name"
        if [[ $quoted == "$word"* ]]; then COMPREPLY+=("$quoted"); fi
        ;;
    esac
  done
}
complete -o default -F _microvm_rootfs ${NAME}
`,
  zsh: `#compdef ${NAME}
_microvm_rootfs() {
  local -a found
  # PREFIX is the word before the cursor, without a quote that is still open.
  found=(\${(f)"$(${NAME} __complete -- "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)"})
  if (( \${#found} )); then compadd -a found; else _files; fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _microvm_rootfs "$@"; else compdef _microvm_rootfs ${NAME}; fi
`,
  fish: `function __microvm_rootfs_complete
  set -l typed (commandline -ct)
  # Without its quotes. A quote that is still open cannot be undone, only left out.
  set -l word (string unescape -- "$typed"); or set word (string replace -r '^["\\']' '' -- "$typed")
  set -l found (${NAME} __complete -- (commandline -opc)[2..] "$word" 2>/dev/null)
  if count $found >/dev/null
    printf '%s\\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c ${NAME} -f -a '(__microvm_rootfs_complete)'
`,
};

export function scriptFor(shell: Shell): string {
  return SCRIPTS[shell];
}

/** What the last of these words could become. `folders` tells which ones the options before it name. */
export async function candidates(
  program: Command,
  words: readonly string[],
  folders: (flags: Readonly<Record<string, string>>) => Promise<Folders>,
): Promise<string[]> {
  const before = words.slice(0, -1);
  const started = words.at(-1) ?? '';
  const { command, position, awaiting, flags, given } = walk(program, before);
  const takesOption = started.startsWith('-') && (awaiting === undefined || awaiting.variadic);
  const all = takesOption
    ? optionsOf(command, program)
    : awaiting
      ? (awaiting.argChoices ?? (await namesOf(/<(\w+)/.exec(awaiting.flags)?.[1], () => folders(flags))))
      : command.commands.length > 0
        ? visible(command).map((each) => each.name())
        : command.name() === 'help' && position === 0
          ? visible(program).map((each) => each.name())
          : await argumentsFor(command, position, given, () => folders(flags));
  return all.filter((word) => word.startsWith(started)).sort();
}

/** The command that the words lead to, how many of its arguments they hold, and the options that they give. */
function walk(program: Command, words: readonly string[]) {
  let command = program;
  let position = 0;
  let awaiting: Option | undefined;
  const flags: Record<string, string> = {};
  const given = new Set<string>();
  for (const word of words) {
    if (awaiting !== undefined && !(awaiting.variadic && word.startsWith('-'))) {
      flags[awaiting.attributeName()] = word;
      if (!awaiting.variadic) awaiting = undefined;
    } else if (word.startsWith('-')) {
      const [long, value] = word.split(/=(.*)/s) as [string, string?];
      const option = [...command.options, ...program.options].find((each) => each.long === long);
      given.add(long);
      awaiting = undefined;
      if (option?.required && value === undefined) awaiting = option;
      else if (option?.required && value !== undefined) flags[option.attributeName()] = value;
    } else {
      const next = command.commands.find((each) => each.name() === word);
      if (next === undefined) position++;
      else command = next;
    }
  }
  return { command, position, awaiting, flags, given };
}

function optionsOf(command: Command, program: Command): string[] {
  const options = new Set([...command.options, ...program.options].flatMap(({ long }) => long ?? []));
  return [...options, '--help'];
}

function visible(command: Command): Command[] {
  return command.createHelp().visibleCommands(command) as Command[];
}

async function argumentsFor(
  command: Command,
  position: number,
  given: ReadonlySet<string>,
  folders: () => Promise<Folders>,
): Promise<string[]> {
  const args = command.registeredArguments;
  const last = args.at(-1);
  const argument = args[position] ?? (last?.variadic ? last : undefined);
  if (argument?.argChoices !== undefined) return [...argument.argChoices];
  // Of grow, and of prewarm: with them, the argument is another thing.
  const other = given.has('--image') ? 'image' : given.has('--snapshot') ? 'snapshot' : undefined;
  return namesOf(position === 0 ? (other ?? argument?.name()) : argument?.name(), folders);
}

/** What is there of the kind that help calls so. */
async function namesOf(kind: string | undefined, folders: () => Promise<Folders>): Promise<string[]> {
  // Folder names are enough: reading the images would take too long.
  switch (kind) {
    case 'stack':
      return foldersIn((await folders()).templateDir);
    case 'vm':
    case 'from':
      return foldersIn((await folders()).clonesDir);
    case 'snapshot':
      return foldersIn((await folders()).snapshotsDir);
    default:
      return [];
  }
}

async function foldersIn(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return (
      entries
        .filter((entry) => entry.isDirectory())
        .map(({ name }) => name)
        // The scripts read one name a line, and the command would take `-x` for an option.
        .filter((name) => !/^[.-]/.test(name) && printable(name) === name)
    );
  } catch {
    return [];
  }
}
