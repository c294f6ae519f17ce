// What this host runs: kernel, Node.js, the addon, e2fsprogs.
import { release } from 'node:os';
import { join } from 'node:path';
import { libc, loadedBinary } from '../../addon/host-facts.js';
import { type RootfsConfig, RootfsError } from '../../index.js';
import { findProgram } from '../../programs/find-program.js';
import { run } from '../../programs/run-program.js';
import { isKernelSince } from '../../system/kernel-version.js';
import { asRoot, shellWord } from '../shell-words.js';
import { type Finding, fail, ok, warn } from './finding.js';

const OLDEST_KERNEL = [4, 18] as const;

export function kernel(): Finding {
  if (process.platform !== 'linux') return fail('kernel', `${process.platform}: only Linux serves`);
  const version = release();
  return isKernelSince(...OLDEST_KERNEL, version)
    ? ok('kernel', `Linux ${version}`)
    : fail('kernel', `Linux ${version}: older than ${OLDEST_KERNEL.join('.')}`, asRoot('apt-get', 'upgrade'));
}

export function runtime(): Finding {
  return ok('runtime', `Node.js ${process.version}, ${process.arch}, ${libc()}`);
}

export async function addon(): Promise<Finding> {
  try {
    return ok('addon', await loadedBinary());
  } catch (error) {
    // The first line is the failure; the others list what was tried.
    const [what = ''] = (error as Error).message.split('\n');
    const root = join(__dirname, '..', '..', '..');
    return fail('addon', what, `cd ${shellWord(root)} && npm run build:addon`);
  }
}

export async function e2fsprogs(config: RootfsConfig, signal: AbortSignal): Promise<Finding[]> {
  const programs = [
    { check: 'resize2fs', program: config.resize2fsBin, args: [] },
    { check: 'e2fsck', program: config.e2fsckBin, args: ['-V'] },
  ];
  return Promise.all(programs.map((each) => version(each, signal)));
}

async function version(
  { check, program, args }: { check: string; program: string; args: readonly string[] },
  signal: AbortSignal,
): Promise<Finding> {
  const path = await findProgram(program);
  const fix = await installCommand('e2fsprogs');
  if (path === undefined) return warn(check, `no ${program}: clones cannot be grown`, fix);
  try {
    // Both print it on stderr, resize2fs with the usage that it has to say about too few arguments.
    const { stderr } = await run(path, args, signal);
    const [, number] = /^\w+ (\d\S*)/.exec(stderr) ?? [];
    if (number !== undefined) return ok(check, `${number}, ${path}`);
  } catch (error) {
    signal.throwIfAborted();
    // Reported already.
    if (error instanceof RootfsError && error.code === 'ADDON_NOT_LOADED') return ok(check, path);
    return warn(check, `${path} cannot be run: ${(error as Error).message}`, fix);
  }
  return warn(check, `${path} does not say which version it is: is it ${check}?`, fix);
}

/** With this host's own package manager. */
async function installCommand(packageName: string): Promise<string> {
  if ((await findProgram('dnf')) !== undefined) return asRoot('dnf', 'install', packageName);
  if ((await findProgram('apk')) !== undefined) return asRoot('apk', 'add', packageName);
  if ((await findProgram('pacman')) !== undefined) return asRoot('pacman', '-S', packageName);
  return asRoot('apt-get', 'install', packageName);
}
