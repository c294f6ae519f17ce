// Finds the settings: flags, then the environment, then a file, then the library's defaults.
import { isAbsolute, resolve } from 'node:path';
import { DEFAULT_CLONES_DIR, DEFAULT_TEMPLATE_DIR, type RootfsConfig, RootfsError } from '../index.js';
import { absolutePath } from '../system/arguments.js';
import { environmentOverrides, hasStrayCharacters } from '../system/config.js';
import { parseRegistrySettings } from '../system/registry-settings.js';
import { readText } from './text-input.js';

/** Read if it exists. */
const DEFAULT_CONFIG_FILE = '/etc/microvm-rootfs.json';

/** As the parser of arguments returns them. */
export interface ConfigFlags {
  readonly templates?: string;
  readonly clones?: string;
  readonly snapshots?: string;
  readonly resize2fs?: string;
  readonly e2fsck?: string;
  readonly mke2fs?: string;
  readonly sealing?: boolean;
  readonly config?: string;
}

type Environment = Readonly<Record<string, string | undefined>>;
type Settings = Partial<RootfsConfig>;

const KEYS = [
  'templateDir',
  'clonesDir',
  'snapshotsDir',
  'resize2fsBin',
  'e2fsckBin',
  'mke2fsBin',
  'sealing',
  'registries',
];
const PATH_FLAGS = ['templates', 'clones', 'snapshots', 'config', 'resize2fs', 'e2fsck', 'mke2fs'] as const;
const FOLDERS = ['templateDir', 'clonesDir', 'snapshotsDir'] as const;

/** Throws `CONFIG_INVALID` for a file that cannot be read or has invalid settings. */
export async function effectiveConfig(
  flags: ConfigFlags,
  env: Environment,
  signal?: AbortSignal,
): Promise<Settings> {
  for (const name of PATH_FLAGS) {
    // It may come from an unset shell variable. An empty path would mean the working folder.
    if (flags[name] === '')
      throw new RootfsError('INVALID_ARGUMENT', `--${name} is empty: give a path, or leave it out`);
  }
  const file = await configOfFile(namedFile(flags, env), signal);
  const config: Settings = { ...file, ...environmentOverrides(env), ...flagOverrides(flags) };
  const folder = (key: (typeof FOLDERS)[number], path: string) => ({ [key]: absolutePath(key, path) });
  return {
    ...config,
    ...folder('templateDir', config.templateDir ?? DEFAULT_TEMPLATE_DIR),
    ...folder('clonesDir', config.clonesDir ?? DEFAULT_CLONES_DIR),
    ...(config.snapshotsDir === undefined ? {} : folder('snapshotsDir', config.snapshotsDir)),
  };
}

function namedFile(flags: ConfigFlags, env: Environment): string | undefined {
  return flags.config ?? (env.MICROVM_ROOTFS_CONFIG || undefined);
}

/**
 * The flags that give another command the same file and folders. Commands that people copy need them, because `sudo`
 * drops the environment.
 */
export function repeatedFlags(config: RootfsConfig, flags: ConfigFlags, env: Environment): string[] {
  const file = namedFile(flags, env);
  return [
    ...(file === undefined ? [] : ['--config', resolve(file)]),
    ...(config.templateDir === DEFAULT_TEMPLATE_DIR ? [] : ['--templates', config.templateDir]),
    ...(config.clonesDir === DEFAULT_CLONES_DIR ? [] : ['--clones', config.clonesDir]),
    ...(config.snapshotsDir === undefined ? [] : ['--snapshots', config.snapshotsDir]),
  ];
}

function flagOverrides(flags: ConfigFlags): Settings {
  return {
    ...(flags.templates === undefined ? {} : { templateDir: flags.templates }),
    ...(flags.clones === undefined ? {} : { clonesDir: flags.clones }),
    ...(flags.snapshots === undefined ? {} : { snapshotsDir: flags.snapshots }),
    ...(flags.resize2fs === undefined ? {} : { resize2fsBin: flags.resize2fs }),
    ...(flags.e2fsck === undefined ? {} : { e2fsckBin: flags.e2fsck }),
    ...(flags.mke2fs === undefined ? {} : { mke2fsBin: flags.mke2fs }),
    ...(flags.sealing === false ? { sealing: 'off' as const } : {}),
  };
}

async function configOfFile(named: string | undefined, signal?: AbortSignal): Promise<Settings> {
  const path = named ?? DEFAULT_CONFIG_FILE;
  let text: string;
  try {
    text = await readText(path, signal);
  } catch (error) {
    if (signal?.aborted) throw error;
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (missing && named === undefined) return {};
    throw invalid(path, missing ? 'there is no such file' : (error as Error).message, error);
  }
  return parse(path, text);
}

function parse(path: string, text: string): Settings {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(path, `it is not JSON: ${(error as Error).message}`, error);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(path, 'it must hold one JSON object');
  }
  const repeated = repeatedKey(text);
  if (repeated !== undefined) throw invalid(path, `"${repeated}" stands there twice: keep one of the two`);
  const settings = value as Record<string, unknown>;
  for (const [key, setting] of Object.entries(settings)) {
    if (!KEYS.includes(key)) throw invalid(path, `"${key}" is not a setting; known are ${KEYS.join(', ')}`);
    if (key === 'registries') {
      checkRegistries(path, setting);
      continue;
    }
    if (typeof setting !== 'string' || setting === '') throw invalid(path, `"${key}" must be a string`);
    if (hasStrayCharacters(setting))
      throw invalid(
        path,
        `"${key}" has space around it or a control character in it: ${JSON.stringify(setting)}`,
      );
  }
  if (settings.sealing !== undefined && settings.sealing !== 'auto' && settings.sealing !== 'off')
    throw invalid(path, '"sealing" must be "auto" or "off"');
  for (const folder of FOLDERS) {
    const setting = settings[folder] as string | undefined;
    // The command may run in any folder, so a relative path would be ambiguous.
    if (setting !== undefined && !isAbsolute(setting))
      throw invalid(path, `"${folder}" must be an absolute path`);
  }
  return settings as Settings;
}

/** JSON.parse() silently keeps the last of several values. */
function repeatedKey(json: string): string | undefined {
  const objects: Set<string>[] = [];
  for (const [token, key] of json.matchAll(/("(?:[^"\\]|\\.)*")\s*:|"(?:[^"\\]|\\.)*"|[{}]/g)) {
    if (token === '{') objects.push(new Set());
    else if (token === '}') objects.pop();
    else if (key !== undefined) {
      const keys = objects.at(-1);
      const name: string = JSON.parse(key);
      if (keys?.has(name)) return name;
      keys?.add(name);
    }
  }
  return undefined;
}

function checkRegistries(path: string, setting: unknown): void {
  try {
    parseRegistrySettings(setting);
  } catch (error) {
    throw invalid(path, (error as Error).message.replace('config.registries', '"registries"'), error);
  }
}

function invalid(path: string, why: string, cause?: unknown): RootfsError {
  return new RootfsError('CONFIG_INVALID', `configuration file ${path}: ${why}`, { path, cause });
}
