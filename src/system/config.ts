import { isPath, requireKnownKeys, show } from './arguments.js';
import { RootfsError } from './errors.js';

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
}

const DEFAULTS: RootfsConfig = {
  templateDir: DEFAULT_TEMPLATE_DIR,
  clonesDir: DEFAULT_CLONES_DIR,
  snapshotsDir: undefined,
  resize2fsBin: DEFAULT_RESIZE2FS_BIN,
  e2fsckBin: DEFAULT_E2FSCK_BIN,
  mke2fsBin: DEFAULT_MKE2FS_BIN,
  sealing: 'auto',
};

/** Fills what is missing with the defaults. Does no I/O. Throws `INVALID_ARGUMENT`. */
export function completeConfig(config: Partial<RootfsConfig> = {}): RootfsConfig {
  requireKnownKeys('config', config, Object.keys(DEFAULTS));
  const complete: Record<string, string | undefined> = { ...DEFAULTS };
  for (const [key, value] of Object.entries(config)) {
    if (value === undefined) continue;
    if (key === 'sealing') {
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
    complete[key] = value;
  }
  return Object.freeze(complete) as unknown as RootfsConfig;
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
  return Object.fromEntries(Object.entries(overrides).filter(([, value]) => value));
}
