// Loads the addon's binary: a local build, else the shipped one. Each is looked for by its own name: a program that
// bundles this library may have an addon of its own beside it. If none loads, the error lists each with its reason.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { RootfsError } from '../system/errors.js';

interface Failure {
  readonly path: string;
  readonly error: Error;
}

const HERE = join(__dirname, '..', '..');

/** Tries the binaries in order. Throws `ADDON_NOT_LOADED`, with the error of each, if none loads. */
export function loadAddon(): unknown {
  // Not a plain `require`, which bundlers would try to resolve.
  const require = createRequire(join(__dirname, 'index.js'));
  const named = process.env.MICROVM_ROOTFS_ADDON;
  const roots = packageRoots(require);
  const failures: Failure[] = [];
  for (const path of named ? [resolve(named)] : candidates(roots)) {
    try {
      return require(path);
    } catch (error) {
      failures.push({ path, error: error instanceof Error ? error : new Error(String(error)) });
    }
  }
  throw new RootfsError('ADDON_NOT_LOADED', explain(failures, roots[0] as string), {
    cause: new AggregateError(failures.map(({ error }) => error)),
  });
}

function candidates(roots: readonly string[]): readonly string[] {
  const builds = process.env.PREBUILDS_ONLY ? [] : [join('build', 'Release', 'microvm_rootfs.node')];
  const files = [...builds, join('prebuilds', `linux-${process.arch}`, 'microvm-rootfs.node')];
  return roots.flatMap((root) => files.map((file) => join(root, file)));
}

/** The folders that may be the package's, the likeliest first. */
function packageRoots(require: NodeJS.Require): readonly string[] {
  // In a bundle, this file is somewhere in the program; the package may be installed next to it for its binaries.
  try {
    const installed = dirname(require.resolve('microvm-rootfs/package.json'));
    return existsSync(join(HERE, 'binding.gyp')) || HERE === installed ? [HERE] : [installed, HERE];
  } catch {
    return [HERE];
  }
}

function explain(failures: readonly Failure[], root: string): string {
  const tried = failures.map(
    ({ path, error }) => `  ${path}: ${existsSync(path) ? reason(path, error) : 'no such file'}`,
  );
  return [
    `no binary of the addon could be loaded on ${process.platform}-${process.arch}, ${libc()}, Node ` +
      `${process.version}. Looked for:`,
    ...tried,
    ...(failures.some(isForbidden) ? FORBIDDEN : howToBuild(root)),
  ].join('\n');
}

/** Whether Node's own flags forbid addons. */
function isForbidden({ error }: Failure): boolean {
  return 'code' in error && error.code === 'ERR_DLOPEN_DISABLED';
}

const FORBIDDEN = [
  'Node was told to load no addons: add --allow-addons to --permission, or leave out --no-addons.',
];

function howToBuild(root: string): readonly string[] {
  return [
    'Shipped are binaries for linux-x64 and linux-arm64, for glibc 2.28 and newer and for musl.',
    'This builds one from source; it needs g++, make, python3 and the headers of Node:',
    `  cd '${root.replaceAll("'", "'\\''")}' && npm run build:addon`,
  ];
}

function reason(path: string, error: Error): string {
  // The dynamic loader puts the path first, and Node where the file was required from after it.
  return (error.message.split('\n')[0] ?? '').replace(`${path}: `, '');
}

/** The C library that this process runs on. */
export function libc(): string {
  try {
    const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
    if (header?.glibcVersionRuntime) return `glibc ${header.glibcVersionRuntime}`;
    return readFileSync('/proc/self/maps', 'latin1').includes('ld-musl') ? 'musl' : 'a libc of unknown kind';
  } catch {
    return 'a libc of unknown kind';
  }
}
