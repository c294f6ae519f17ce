import { type Command, Option } from 'commander';
import { mountPath as resolve } from '../mount-path.js';
import { details } from '../output.js';
import { inSession } from '../session.js';
import { formatSize, parseSize } from '../sizes.js';
import { checkStore } from '../store/check.js';
import { createStore } from '../store/create.js';
import { mountOfImage } from '../store/find-store.js';
import { growStore } from '../store/grow.js';
import { STORE_KINDS, type StoreKind } from '../store/kinds.js';
import { mountAgain } from '../store/mount.js';
import { removeStore } from '../store/remove.js';
import { type StoreStatus, statusOfFolder, statusOfImage } from '../store/status.js';
import { installUnits, UNIT_FOLDER, unitsFor } from '../store/unit.js';

const STATUS_JSON = `
JSON: { "image", "fs", "sizeBytes", "allocatedBytes", "mountPoint", "device", "usedBytes",
        "freeBytes", "slots" }; null from "mountPoint" on where it is not mounted`;

const MOUNT = ['--mount <dir>', 'the folder to mount it on, instead of the clones folder'] as const;

export function addStore(program: Command): void {
  const store = program
    .command('store')
    .description('Give a host reflinks: an XFS or btrfs in a file, mounted on the clones folder.')
    .helpCommand('help [command]', 'Print help, or that of a command.')
    .addHelpText(
      'after',
      `
Examples:
  sudo microvm-rootfs store create /var/lib/microvm/store.img --size 100G
  sudo microvm-rootfs store unit /var/lib/microvm/store.img --install`,
    );
  addCreate(store);
  addGrow(store);
  addStatus(store);
  addMount(store);
  addCheck(store);
  addUnit(store);
  addRemove(store);
}

interface CreateFlags {
  readonly size: number;
  readonly fs: StoreKind;
  readonly mount?: string;
  readonly sparse?: boolean;
}

function addCreate(store: Command): void {
  store
    .command('create')
    .description('Create a store and mount it. Creates everything or nothing, and overwrites nothing.')
    .argument('<image>', 'the image file to create')
    .requiredOption('--size <size>', 'its size: 100G', parseSize)
    .addOption(new Option('--fs <kind>', 'the file system to make').choices(STORE_KINDS).default('xfs'))
    .option(...MOUNT)
    .option('--sparse', 'reserve no space: when the disk is full, clones lose what is written to them')
    .addHelpText(
      'after',
      `
The space is reserved on the disk at once, so that a full disk cannot harm the clones.
${STATUS_JSON}

Examples:
  sudo microvm-rootfs store create /var/lib/microvm/store.img --size 100G
  sudo microvm-rootfs store create ./store.img --size 20G --fs btrfs --mount /srv/vms`,
    )
    .action((image: string, { size, fs, mount, sparse = false }: CreateFlags, command: Command) =>
      inSession(command, async (session) => {
        const { output, config, signal } = session;
        const mountPoint = resolve(mount ?? config.clonesDir);
        const wanted = { image: resolve(image), sizeBytes: size, kind: fs, mountPoint, sparse };
        const made = await session.during('making the store', () => createStore(wanted, signal));
        output.print(made, () => text(made));
      }),
    );
}

function addGrow(store: Command): void {
  store
    .command('grow')
    .description('Make a store larger, while it is in use.')
    .argument('<image>', "the store's image file")
    .argument('<size>', 'its new size', parseSize)
    .addHelpText(
      'after',
      `${STATUS_JSON}\n\nExample:\n  sudo microvm-rootfs store grow /var/lib/microvm/store.img 200G`,
    )
    .action((image: string, size: number, _flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { output, config, signal } = session;
        const path = resolve(image);
        await session.during('growing the store', () => growStore(path, size, signal));
        const grown = await statusOfImage(path, config.clonesDir);
        output.print(grown, () => text(grown));
      }),
    );
}

function addStatus(store: Command): void {
  store
    .command('status')
    .description('Show the store of the clones folder, or the one that is named.')
    .argument('[image]', "the store's image file")
    .addHelpText('after', `${STATUS_JSON}\n\nExample:\n  microvm-rootfs store status`)
    .action((image: string | undefined, _flags: object, command: Command) =>
      inSession(command, async ({ output, config }) => {
        const status = await (image === undefined
          ? statusOfFolder(config.clonesDir)
          : statusOfImage(resolve(image), config.clonesDir));
        output.print(status, () => text(status));
      }),
    );
}

function addMount(store: Command): void {
  store
    .command('mount')
    .description('Mount an existing store.')
    .argument('<image>', "the store's image file")
    .option(...MOUNT)
    .addHelpText(
      'after',
      `${STATUS_JSON}\n\nExample:\n  sudo microvm-rootfs store mount /var/lib/microvm/store.img`,
    )
    .action((image: string, { mount }: { mount?: string }, command: Command) =>
      inSession(command, async ({ output, config, signal }) => {
        const path = resolve(image);
        await mountAgain(path, resolve(mount ?? config.clonesDir), signal);
        const status = await statusOfImage(path, config.clonesDir);
        output.print(status, () => text(status));
      }),
    );
}

function addCheck(store: Command): void {
  store
    .command('check')
    .description('Check that a store that is not mounted is undamaged.')
    .argument('<image>', "the store's image file")
    .addHelpText(
      'after',
      `
JSON: { "image", "fs", "clean": true }; a damaged store is the error STORE_DAMAGED

Example:
  sudo microvm-rootfs store check /var/lib/microvm/store.img`,
    )
    .action((image: string, _flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { output, signal } = session;
        const path = resolve(image);
        const checked = await session.during('checking the store', () => checkStore(path, signal));
        output.print(checked, () => `${path} is whole.`);
      }),
    );
}

interface UnitFlags {
  readonly mount?: string;
  readonly install?: boolean;
  readonly unitDir: string;
}

function addUnit(store: Command): void {
  store
    .command('unit')
    .description('Print systemd units that check a store and mount it at boot, or install them.')
    .argument('<image>', "the store's image file")
    .option(
      '--mount <dir>',
      'the folder to mount it on, instead of where it is mounted now or the clones folder',
    )
    .option('--install', 'write and enable them')
    .option('--unit-dir <dir>', 'where to write them', UNIT_FOLDER)
    .addHelpText(
      'after',
      `
JSON: { "units": [{ "name", "text" }], "installed": [path] }

Example:
  sudo microvm-rootfs store unit /var/lib/microvm/store.img --install`,
    )
    .action((image: string, { mount, install, unitDir }: UnitFlags, command: Command) =>
      inSession(command, async ({ output, config }) => {
        const path = resolve(image);
        const present = (await mountOfImage(path))?.mountPoint;
        const units = await unitsFor(path, resolve(mount ?? present ?? config.clonesDir));
        const installed = install ? await installUnits(units, resolve(unitDir)) : [];
        output.print({ units, installed }, () =>
          install
            ? installed.map((path) => `Installed ${path}.`).join('\n')
            : units.map(({ name, text }) => `# ${name}\n${text}`).join('\n'),
        );
      }),
    );
}

function addRemove(store: Command): void {
  store
    .command('rm')
    .description('Unmount and remove a store that holds no clone.')
    .argument('<image>', "the store's image file")
    .option('--force', 'remove it even if it has clones; never while it is in use')
    .addHelpText(
      'after',
      `
JSON: { "removed": image }

Example:
  sudo microvm-rootfs store rm /var/lib/microvm/store.img`,
    )
    .action((image: string, { force = false }: { force?: boolean }, command: Command) =>
      inSession(command, async ({ output, signal }) => {
        const removed = await removeStore(resolve(image), force, signal);
        output.print({ removed }, () => `Removed ${removed}.`);
      }),
    );
}

function text(status: StoreStatus): string {
  const { image, fs, sizeBytes, allocatedBytes, mountPoint, device, usedBytes, freeBytes, slots } = status;
  const reserved =
    allocatedBytes >= sizeBytes ? 'all of it reserved' : `${formatSize(allocatedBytes)} of it reserved`;
  return details({
    Image: image,
    Size: `${formatSize(sizeBytes)}, ${reserved}`,
    'File system': fs,
    'Mounted on': mountPoint === null ? 'nothing' : `${mountPoint} (${device})`,
    Used: usedBytes === null ? undefined : formatSize(usedBytes),
    Free: freeBytes === null ? undefined : formatSize(freeBytes),
    Clones: slots === null ? undefined : `${slots}`,
  });
}
