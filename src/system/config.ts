import { absolutePath, programPath, readOptions, requireSizeBytes, requireUtf8, show } from './arguments.js';
import { invalidArgument } from './errors.js';
import { refuseOverlap } from './folders-overlap.js';
import { parseRegistrySettings, type RegistrySettings } from './registry-settings.js';

/** The default folder of templates. */
export const DEFAULT_TEMPLATE_DIR = '/var/lib/microvm/rootfs-templates';
/** The default folder of slots. */
export const DEFAULT_CLONES_DIR = '/var/lib/microvm/rootfs';
/** Looked up on PATH, then in `/usr/sbin` and `/sbin`. */
export const DEFAULT_RESIZE2FS_BIN = 'resize2fs';
/** Looked up on PATH, then in `/usr/sbin` and `/sbin`. */
export const DEFAULT_E2FSCK_BIN = 'e2fsck';
/** Looked up on PATH, then in `/usr/sbin` and `/sbin`. */
export const DEFAULT_MKE2FS_BIN = 'mke2fs';

export type { RegistrySettings } from './registry-settings.js';

export interface RootfsConfig {
  /**
   * Holds `<stack>/rootfs.ext4`. Only `publishStack`, `removeStack` and `pullStack` write to it; their own folder in it
   * is `.microvm-rootfs`.
   */
  readonly templateDir: string;
  /** Holds `<slot name>/rootfs.ext4`. Created with the first slot. */
  readonly clonesDir: string;
  /**
   * Holds `<snapshot>/…`. The default is `<clonesDir>/.microvm-rootfs/snapshots`, where disks can be reflinked.
   * Created with the first snapshot.
   */
  readonly snapshotsDir: string | undefined;
  /** A path, or a name to look up on PATH and in `/usr/sbin`, `/sbin`. */
  readonly resize2fsBin: string;
  /** The same for `e2fsck`, which runs on our own copies of images. */
  readonly e2fsckBin: string;
  /** The same for `mke2fs`, which makes the file system when a folder or tar is published. */
  readonly mke2fsBin: string;
  /**
   * `auto`: where the clones folder can reflink, clones come from a sealed image of each template, an immutable image
   * that is made on first use. `off`: clones come directly from the template.
   */
  readonly sealing: 'auto' | 'off';
  /** How many grown and packed sealed images to keep; beyond that the least used go. */
  readonly sealedImages: number;
  /** How many bytes on disk they may hold. */
  readonly sealedBytes: number;
  /**
   * How to reach OCI registries, by host. Hosts without an entry are reached by https, with the system's certificates.
   */
  readonly registries: RegistrySettings;
}

const DEFAULTS: RootfsConfig = {
  templateDir: DEFAULT_TEMPLATE_DIR,
  clonesDir: DEFAULT_CLONES_DIR,
  snapshotsDir: undefined,
  resize2fsBin: DEFAULT_RESIZE2FS_BIN,
  e2fsckBin: DEFAULT_E2FSCK_BIN,
  mke2fsBin: DEFAULT_MKE2FS_BIN,
  sealing: 'auto',
  sealedImages: 64,
  sealedBytes: 16 * 1024 ** 3,
  registries: {},
};

/**
 * Fills in the defaults, and makes relative folders absolute from the present folder of the process. Does no I/O.
 * Throws `INVALID_ARGUMENT`, and `FOLDERS_OVERLAP` if one folder is inside another.
 */
export function completeConfig(config: Partial<RootfsConfig> = {}): RootfsConfig {
  const given = readOptions('config', config, Object.keys(DEFAULTS) as (keyof RootfsConfig)[]);
  const settings = Object.entries(given).map(([key, value]) => [key, parseSetting(key, value)]);
  const whole: RootfsConfig = Object.freeze({ ...DEFAULTS, ...Object.fromEntries(settings) });
  refuseOverlap(whole);
  return whole;
}

function parseSetting(key: string, value: unknown): unknown {
  const name = `config.${key}`;
  switch (key) {
    case 'registries':
      return parseRegistrySettings(value);
    case 'sealing':
      if (value === 'auto' || value === 'off') return value;
      throw invalidArgument(`${name} must be 'auto' or 'off', got ${show(value)}`);
    case 'sealedImages':
    case 'sealedBytes':
      return requireSizeBytes(name, value);
    default:
      return key.endsWith('Bin') ? programPath(name, value) : absolutePath(name, value);
  }
}

/**
 * Reads the configuration from the environment: `MICROVM_ROOTFS_TEMPLATE_DIR`, `MICROVM_ROOTFS_CLONES_DIR`,
 * `MICROVM_ROOTFS_SNAPSHOTS_DIR`, `MICROVM_RESIZE2FS_BIN`. A missing or empty variable means the default.
 */
export function configFromEnv(env: Readonly<Record<string, string | undefined>> = process.env): RootfsConfig {
  return completeConfig(environmentOverrides(env));
}

/** Only the settings that the environment has. */
export function environmentOverrides(
  env: Readonly<Record<string, string | undefined>>,
): Partial<RootfsConfig> {
  if (typeof env !== 'object' || env === null)
    throw invalidArgument(`env must be an object of variables, got ${show(env)}`);
  const overrides: { [setting in (typeof VARIABLES)[number][1]]?: string } = {};
  for (const [variable, setting] of VARIABLES) {
    const value = env[variable];
    if (!value) continue;
    requireUtf8(`${variable} in the environment`, value);
    if (hasStrayCharacters(value)) {
      throw invalidArgument(
        `${variable} in the environment has space around it or a control character in it: ${show(value)}`,
      );
    }
    if (FOR_A_SHELL.test(value)) {
      throw invalidArgument(
        `${variable} in the environment is ${show(value)}, but no shell expands it: write the plain path. ` +
          'If the path really begins like that, put ./ before it',
      );
    }
    overrides[setting] = value;
  }
  return overrides;
}

const VARIABLES = [
  ['MICROVM_ROOTFS_TEMPLATE_DIR', 'templateDir'],
  ['MICROVM_ROOTFS_CLONES_DIR', 'clonesDir'],
  ['MICROVM_ROOTFS_SNAPSHOTS_DIR', 'snapshotsDir'],
  ['MICROVM_RESIZE2FS_BIN', 'resize2fsBin'],
] as const;

/** Units of systemd and files of variables take these as they are, and a folder of that name would be made. */
const FOR_A_SHELL = /^["'~$]/;

/** Left in settings by other line endings or by typing errors; no folder is meant to have such a name. */
export function hasStrayCharacters(value: string): boolean {
  return value !== value.trim() || /\p{Cc}/u.test(value);
}
