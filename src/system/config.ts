import { absolutePath, isPath, requireKnownKeys, show } from './arguments.js';
import { RootfsError } from './errors.js';
import { refuseOverlap } from './folders-overlap.js';
import { parseRegistrySettings, type RegistrySettings } from './registry-settings.js';

/** Where templates lie when nothing else is configured. */
export const DEFAULT_TEMPLATE_DIR = '/var/lib/microvm/rootfs-templates';
/** Where slots lie when nothing else is configured. */
export const DEFAULT_CLONES_DIR = '/var/lib/microvm/rootfs';
/** Looked up on PATH, then where system programs lie. */
export const DEFAULT_RESIZE2FS_BIN = 'resize2fs';
/** Looked up on PATH, then where system programs lie. */
export const DEFAULT_E2FSCK_BIN = 'e2fsck';
/** Looked up on PATH, then where system programs lie. */
export const DEFAULT_MKE2FS_BIN = 'mke2fs';

export { parseRegistrySettings, type RegistrySettings } from './registry-settings.js';

export interface RootfsConfig {
  /** Holds `<stack>/rootfs.ext4`. Written to by `publishStack` and `removeStack` alone; their own folder in it is `.microvm-rootfs`. */
  readonly templateDir: string;
  /** Holds `<vm id>/rootfs.ext4`. Made when the first slot is. */
  readonly clonesDir: string;
  /** Holds `<snapshot>/…`; `<clonesDir>/.microvm-rootfs/snapshots` if not given, where disks can be reflinked. Made when the first snapshot is. */
  readonly snapshotsDir: string | undefined;
  /** A path, or a name to look up on PATH and in `/usr/sbin`, `/sbin`. */
  readonly resize2fsBin: string;
  /** Likewise; run on our own copies of images that need it before they can grow. */
  readonly e2fsckBin: string;
  /** Likewise; makes the filesystem of a folder or tar that is published. */
  readonly mke2fsBin: string;
  /**
   * `auto`: where the clones folder can reflink, clones come from a sealed image of each template: one immutable copy in few extents, made on
   * first use. `off`: clones come straight from the template.
   */
  readonly sealing: 'auto' | 'off';
  /** How to reach OCI registries, by host. Those without an entry are reached by https, as the system trusts them. */
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
  registries: {},
};

const FOLDERS: readonly string[] = [
  'templateDir',
  'clonesDir',
  'snapshotsDir',
] satisfies (keyof RootfsConfig)[];

/**
 * Fills what is missing with the defaults, and makes relative folders absolute: they are of the folder that the process is in now. Does no I/O.
 * Throws `INVALID_ARGUMENT`, and `FOLDERS_OVERLAP` for folders of which one lies in another.
 */
export function completeConfig(config: Partial<RootfsConfig> = {}): RootfsConfig {
  requireKnownKeys('config', config, Object.keys(DEFAULTS));
  const complete: Record<string, unknown> = { ...DEFAULTS };
  for (const [key, value] of Object.entries(config)) {
    if (value === undefined) continue;
    if (key === 'registries') {
      parseRegistrySettings(value);
    } else if (key === 'sealing') {
      if (value !== 'auto' && value !== 'off') {
        throw new RootfsError(
          'INVALID_ARGUMENT',
          `config.sealing must be 'auto' or 'off', got ${show(value)}`,
        );
      }
    } else if (!isPath(value)) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `config.${key} must be a path without NUL, got ${show(value)}`,
      );
    }
    // A program's name is looked up on PATH, its path is not.
    const isRelative = FOLDERS.includes(key) || (key.endsWith('Bin') && String(value).includes('/'));
    complete[key] = isRelative ? absolutePath(`config.${key}`, String(value)) : value;
  }
  const whole = Object.freeze(complete) as unknown as RootfsConfig;
  refuseOverlap(whole);
  return whole;
}

/**
 * The configuration that the environment gives: `MICROVM_ROOTFS_TEMPLATE_DIR`, `MICROVM_ROOTFS_CLONES_DIR`,
 * `MICROVM_ROOTFS_SNAPSHOTS_DIR`, `MICROVM_RESIZE2FS_BIN`. A variable that is missing or empty leaves the default.
 */
export function configFromEnv(env: Readonly<Record<string, string | undefined>> = process.env): RootfsConfig {
  return completeConfig(environmentOverrides(env));
}

/** Only what the environment says. */
export function environmentOverrides(
  env: Readonly<Record<string, string | undefined>>,
): Partial<RootfsConfig> {
  const overrides: Record<string, string | undefined> = {
    templateDir: env.MICROVM_ROOTFS_TEMPLATE_DIR,
    clonesDir: env.MICROVM_ROOTFS_CLONES_DIR,
    snapshotsDir: env.MICROVM_ROOTFS_SNAPSHOTS_DIR,
    resize2fsBin: env.MICROVM_RESIZE2FS_BIN,
  };
  const given = Object.entries(overrides).filter(([, value]) => value);
  for (const [name, value] of given) {
    if (hasStrayCharacters(value as string)) {
      throw new RootfsError(
        'INVALID_ARGUMENT',
        `the environment's value of ${name} has space around it or a control character in it: ${show(value)}`,
      );
    }
  }
  return Object.fromEntries(given);
}

/** What files with other line ends or a careless hand leave in a setting. No folder is meant to be called so. */
export function hasStrayCharacters(value: string): boolean {
  return value !== value.trim() || /\p{Cc}/u.test(value);
}
