// systemd units that check a store and mount it at boot.
import { realpath, unlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { RootfsError } from '../../index.js';
import { findProgram } from '../../programs/find-program.js';
import { makeFolders } from '../../system/make-folders.js';
import { mountsOfImage } from './find-store.js';
import { imageFile } from './image-file.js';
import { kindOf } from './kinds.js';
import { mountOptions, requireFreeMountPoint, requireOutside } from './mounting.js';
import { requireRoot, runProgram } from './store-error.js';
import { allOrNothing } from './undo.js';

export interface Unit {
  readonly name: string;
  readonly text: string;
}

export const UNIT_FOLDER = '/etc/systemd/system';

/** A unit has a line for each setting: a path with a line break in it would be another setting. */
function requireOneLine(path: string): void {
  if (!/\p{Cc}|[\s\\]$/u.test(path)) return;
  throw new RootfsError(
    'INVALID_ARGUMENT',
    `${JSON.stringify(path)} cannot be in a unit: ` +
      'it has a control character in it, or ends with a space or a backslash',
    { path },
  );
}

/**
 * A mount unit for the folder, and a service before it without whose good end it is not mounted. Throws for a folder
 * that `store mount` refuses: systemd would hide what is in it.
 */
export async function unitsFor(path: string, mountPoint: string): Promise<readonly [Unit, Unit]> {
  const { sizeBytes, allocatedBytes } = await imageFile(path);
  const kind = await kindOf(path);
  // systemd follows no symbolic link, and would not wait for the disk behind one.
  const image = await realpath(path);
  const where = await canonical(mountPoint);
  for (const each of [image, where]) requireOneLine(each);
  const mounts = await mountsOfImage(image);
  if (!mounts.some(({ mountPoint, root }) => mountPoint === where && root === '/')) {
    await requireOutside(image, where);
    await requireFreeMountPoint(where);
  }
  const escaped = escapePath(where);
  const mount = `${escaped}.mount`;
  const check = `microvm-rootfs-check-${escaped}.service`;
  const program = [process.execPath, resolve(__dirname, '..', 'main.js')];
  const mountText = `# Made by: microvm-rootfs store unit
[Unit]
Description=Store of microVMs' root disks
Requires=${check}
After=${check}
RequiresMountsFor=${quoted(dirname(image))}

[Mount]
What=${percent(image)}
Where=${percent(where)}
Type=${kind}
Options=${mountOptions(allocatedBytes >= sizeBytes)}

[Install]
WantedBy=multi-user.target
`;
  const checkText = `# Made by: microvm-rootfs store unit
[Unit]
Description=Check of the store of microVMs' root disks
DefaultDependencies=no
After=systemd-remount-fs.service systemd-tmpfiles-setup-dev.service
# While it is mounted there is nothing to check, and units that need the mount do not wait.
ConditionPathIsMountPoint=!${percent(where)}
RequiresMountsFor=/tmp ${[image, ...program].map(dirname).map(quoted).join(' ')}

[Service]
Type=oneshot
ExecStart=${[...program, 'store', 'check', image].map(quotedForCommand).join(' ')}
TimeoutStartSec=infinity
`;
  return [
    { name: mount, text: mountText },
    { name: check, text: checkText },
  ];
}

/** Writes and enables them: both or neither. */
export async function installUnits(units: readonly Unit[], folder: string): Promise<string[]> {
  requireRoot('installing units');
  return allOrNothing(async (undo) => {
    await makeFolders(folder);
    const paths: string[] = [];
    for (const { name, text } of units) {
      const path = join(folder, name);
      await writeNew(path, text);
      undo.add(() => unlink(path));
      paths.push(path);
    }
    if (folder === UNIT_FOLDER && (await findProgram('systemctl')) !== undefined) {
      await runProgram('systemctl', ['daemon-reload'], undefined, folder);
      await runProgram('systemctl', ['enable', units[0]?.name ?? ''], undefined, folder);
    }
    return paths;
  });
}

/** One that is there is of another store, or somebody's own: theirs to remove. */
async function writeNew(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text, { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new RootfsError('UNIT_EXISTS', `${path} exists already: it is left as it is`, {
      path,
      cause: error,
    });
  }
}

/** As systemd-escape --path does: systemd.unit(5). */
export function escapePath(path: string): string {
  const trimmed = path.replace(/\/+/g, '/').replace(/^\/|\/$/g, '');
  if (trimmed === '') return '-';
  return [...Buffer.from(trimmed)]
    .map((byte, index) => {
      const character = String.fromCharCode(byte);
      if (character === '/') return '-';
      const plain = /[A-Za-z0-9:_.]/.test(character) && !(index === 0 && character === '.');
      return plain ? character : `\\x${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}

function percent(text: string): string {
  return text.replaceAll('%', '%%');
}

/** systemd mounts on no folder behind a symbolic link. */
async function canonical(path: string): Promise<string> {
  for (let above = path; ; above = dirname(above)) {
    const real = await realpath(above).catch(() => undefined);
    if (real !== undefined) return join(real, relative(above, path));
  }
}

/** A word of a command, in which systemd knows variables as well. */
function quotedForCommand(word: string): string {
  return quoted(word).replaceAll('$', '$$$$');
}

/** A word of a list, in which systemd knows quotes and backslashes. */
function quoted(word: string): string {
  const escaped = percent(word).replaceAll('\\', '\\\\').replaceAll('"', '\\"');
  return /^[\w@+=:,./-]+$/.test(word) ? escaped : `"${escaped}"`;
}
