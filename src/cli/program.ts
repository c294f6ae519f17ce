// All commands, and the options that they share.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { addBench } from './commands/bench.js';
import { addClone } from './commands/clone.js';
import { addCommit } from './commands/commit.js';
import { addCompletion } from './commands/completion.js';
import { addDoctor } from './commands/doctor.js';
import { addExport } from './commands/export.js';
import { addFork } from './commands/fork.js';
import { addGc } from './commands/gc.js';
import { addGrow } from './commands/grow.js';
import { addHash } from './commands/hash.js';
import { addHelp } from './commands/help.js';
import { addInspect } from './commands/inspect.js';
import { addLs } from './commands/ls.js';
import { addPool } from './commands/pool.js';
import { addPrewarm } from './commands/prewarm.js';
import { addPublish } from './commands/publish.js';
import { addRecover } from './commands/recover.js';
import { addRelease } from './commands/release.js';
import { addPull, addPush, addRemote } from './commands/remote.js';
import { addPullSnapshot, addPushSnapshot } from './commands/remote-snapshot.js';
import { addRmStack } from './commands/rm-stack.js';
import { addRestore, addRmSnapshot, addSnapshot, addSnapshots } from './commands/snapshot.js';
import { addStacks } from './commands/stacks.js';
import { addStore } from './commands/store.js';
import { addUsage } from './commands/usage.js';
import { addVerify } from './commands/verify.js';

const AFTER_HELP = `
Folders come from the options, else from the environment (MICROVM_ROOTFS_TEMPLATE_DIR,
MICROVM_ROOTFS_CLONES_DIR, MICROVM_ROOTFS_SNAPSHOTS_DIR, MICROVM_RESIZE2FS_BIN), else from a file
of settings (--config, MICROVM_ROOTFS_CONFIG, /etc/microvm-rootfs.json).

Exit status: 0 done, 1 failed, 2 wrong use, 3 not found, 4 refused as things are,
5 the system failed, 130 interrupted.

Examples:
  microvm-rootfs doctor
  microvm-rootfs publish debian-12 ./rootfs.tar.zst
  microvm-rootfs clone vm-1 debian-12 --size 8G --writable
  microvm-rootfs release vm-1`;

// In the order of the help.
const COMMANDS = [
  addDoctor,
  addStacks,
  addPublish,
  addRmStack,
  addPush,
  addPull,
  addRemote,
  addClone,
  addLs,
  addInspect,
  addGrow,
  addFork,
  addCommit,
  addExport,
  addRelease,
  addSnapshot,
  addSnapshots,
  addRestore,
  addRmSnapshot,
  addPushSnapshot,
  addPullSnapshot,
  addPrewarm,
  addPool,
  addUsage,
  addGc,
  addRecover,
  addVerify,
  addHash,
  addBench,
  addStore,
  addCompletion,
  addHelp,
];

export function buildProgram(): Command {
  const program = new Command('microvm-rootfs')
    .description('Root disks for microVMs: templates, and a copy-on-write clone of one for each VM.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .option('--templates <dir>', 'the folder of templates')
    .option('--clones <dir>', 'the folder of clones')
    .option('--snapshots <dir>', 'the folder of snapshots')
    .option('--config <file>', 'a JSON file with settings')
    .option('--resize2fs <program>', 'the resize2fs to run')
    .option('--e2fsck <program>', 'the e2fsck to run')
    .option('--mke2fs <program>', 'the mke2fs to run')
    .option('--no-sealing', 'clone straight from the templates, without sealed images')
    .option('--json', 'print one JSON document')
    .option('--verbose', 'also print the cause of an error')
    .addHelpText('after', AFTER_HELP)
    .configureHelp({ showGlobalOptions: true })
    // Errors are thrown, and printed in one place.
    .configureOutput({
      outputError: () => {},
      // Help that nobody asked for. With --json all lines on stderr are JSON.
      writeErr: (text) => {
        if (!program.opts().json) process.stderr.write(text);
      },
    })
    .exitOverride();
  for (const add of COMMANDS) add(program);
  refuseRepeats(program);
  return program;
}

/** One of two values would be lost in silence: a list of VMs to keep, say, or the folder that was meant. */
function refuseRepeats(command: Command): void {
  for (const option of command.options) {
    if (option.variadic || option.isBoolean()) continue;
    let given = false;
    command.on(`option:${option.name()}`, () => {
      if (given) command.error(`error: option '${option.flags}' is given twice`);
      given = true;
    });
  }
  command.commands.forEach(refuseRepeats);
}

function version(): string {
  return JSON.parse(readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')).version;
}
