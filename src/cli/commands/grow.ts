import { type Command, Option } from 'commander';
import { RootfsError } from '../../index.js';
import { absolutePath } from '../../system/arguments.js';
import { cloneText } from '../clone-text.js';
import { inSession, type Session } from '../session.js';
import { formatSize, parseSize } from '../sizes.js';

interface GrowFlags {
  readonly stack?: string;
  readonly image?: boolean;
}

export function addGrow(program: Command): void {
  program
    .command('grow')
    .description("Grow a VM's clone (once), or any ext4 image. The file system grows with the file.")
    .argument('<vm>', "the VM's id; with --image the path of an image")
    .argument('<size>', 'the new size: 8G, 512MiB', parseSize)
    .option('--stack <stack>', "the template of the VM's clone, if that is not known")
    .addOption(new Option('--image', 'grow an image of your own, in place').conflicts('stack'))
    .addHelpText(
      'after',
      `
JSON: as "clone" has it; with --image { "path", "sizeBytes" }

Examples:
  microvm-rootfs grow vm-1 8G
  microvm-rootfs grow --image ./rootfs.ext4 2G`,
    )
    .action((target: string, size: number, flags: GrowFlags, command: Command) =>
      inSession(command, async (session) => {
        if (!flags.image) return growSlot(session, target, size, flags.stack);
        return growImage(session, absolutePath('the path of the image', target), size);
      }),
    );
}

async function growImage(session: Session, path: string, sizeBytes: number): Promise<void> {
  const { registry, output, signal } = session;
  await session.during(`growing ${path}`, () => registry.resizeExt4Image(path, sizeBytes, { signal }));
  output.print({ path, sizeBytes }, () => `${path} has ${formatSize(sizeBytes)}.`);
}

async function growSlot(
  session: Session,
  vm: string,
  sizeBytes: number,
  stack: string | undefined,
): Promise<void> {
  const { registry, output, signal } = session;
  // cloneForVmWithSize would create a missing slot.
  const slot = await session.slotOf(vm);
  const of = stack ?? slot.stack;
  if (of === undefined) {
    throw new RootfsError(
      'INVALID_ARGUMENT',
      `cannot tell which template the clone of ${vm} was made from: give --stack`,
    );
  }
  const clone = await session.during(`growing the clone of ${vm}`, () =>
    registry.cloneForVmWithSize(vm, of, sizeBytes, { signal }),
  );
  output.print(clone, () => cloneText(clone));
}
