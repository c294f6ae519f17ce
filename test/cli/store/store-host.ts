// A host that has a store, or is to have one.
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeEach, onTestFinished } from 'vitest';
import type { StoreStatus } from '../../../src/cli/store/status.js';
import { Host } from '../../fixtures/host.js';
import { MiB } from '../../fixtures/images.js';
import { lacks, lacksRoot, type Tool } from '../../fixtures/tools.js';
import { newWorkspace } from '../../fixtures/workspace.js';
import { cliJson } from '../run-cli.js';

/** Skips the tests of a file where no store can be made. */
export function needStores(...tools: Tool[]): void {
  beforeEach(({ skip }) => {
    const missing = lacksRoot() ?? lacks('mkfs.xfs', 'mke2fs', ...tools);
    if (missing) skip(missing);
  });
}

export type StoreHost = Host & { image: string };

/** A host whose clones lie on an ext4 with this much space, as most do. */
export async function ext4Host(bytes = 800 * MiB): Promise<StoreHost> {
  const disk = newWorkspace().disk('ext4', ['mke2fs', '-q', '-F', '-t', 'ext4', '-m', '0'], bytes);
  const host = await Host.in(disk);
  await host.addExt4Template('debian', 4 * MiB);
  // Before the disk under it goes.
  onTestFinished(() => unmount(host.clonesDir));
  return Object.assign(host, { image: join(host.root, 'store.img') });
}

export function unmount(folder: string): void {
  try {
    execFileSync('umount', [folder], { stdio: 'pipe' });
  } catch {
    // It was unmounted by the test.
  }
}

export function isMounted(folder: string): boolean {
  return execFileSync('cat', ['/proc/self/mounts'], { encoding: 'utf8' }).includes(` ${folder} `);
}

export async function create(host: StoreHost, ...args: string[]): Promise<StoreStatus> {
  return cliJson<StoreStatus>(host, ['store', 'create', host.image, ...sized(args)]);
}

/** A PATH on which this script is found instead of a program. */
export async function withProgram(host: Host, program: string, script: string): Promise<string> {
  const bin = join(host.root, 'bin');
  await mkdir(bin, { recursive: true });
  await writeFile(join(bin, program), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return `${bin}${delimiter}${process.env.PATH}`;
}

/** The file that is locked in place of an image or folder. */
export async function lockOf(path: string): Promise<string> {
  const { dev, ino } = await stat(path);
  return `/run/microvm-rootfs/${dev}-${ino}`;
}

/** Resolves when somebody waits for the lock of an image: /proc/locks, proc(5). */
export async function lockIsWaitedFor(image: string): Promise<'waited for'> {
  const { dev, ino } = await stat(await lockOf(image));
  const hex = (number: number) => number.toString(16).padStart(2, '0');
  const minor = (dev & 0xff) | ((dev >> 12) & ~0xff);
  const waiting = new RegExp(`-> FLOCK .* ${hex((dev >> 8) & 0xfff)}:${hex(minor)}:${ino} `);
  while (!waiting.test(await readFile('/proc/locks', 'utf8'))) await sleep(10);
  return 'waited for';
}

/** A program on that PATH which says that it has started, and then waits to be told to go on. */
export async function withStop(
  host: Host,
  program: string,
): Promise<{ PATH: string; started: Promise<string>; goOn: () => Promise<void> }> {
  const [started, go] = [join(host.root, 'started'), join(host.root, 'go')];
  execFileSync('mkfifo', [started, go]);
  const script = `echo $$ > '${started}'; read word < '${go}'; exec ${pathOf(program)} "$@"`;
  const PATH = await withProgram(host, program, script);
  return { PATH, started: readFile(started, 'utf8'), goOn: () => writeFile(go, 'go\n') };
}

export function pathOf(program: string): string {
  const script = `PATH=$PATH:/usr/sbin command -v ${program}`;
  return execFileSync('sh', ['-c', script], { encoding: 'utf8' }).trim();
}

/** With a size, unless they have one. */
export function sized(args: readonly string[]): string[] {
  return args.includes('--size') ? [...args] : ['--size', '300M', ...args];
}
