// A host that has a store, or is to have one.
import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { StoreStatus } from '../../../src/cli/store/status.js';
import { Host } from '../../fixtures/host.js';
import { MiB } from '../../fixtures/images.js';
import { newWorkspace } from '../../fixtures/workspace.js';
import { cliJson } from '../run-cli.js';

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

/** With a size, unless they have one. */
export function sized(args: readonly string[]): string[] {
  return args.includes('--size') ? [...args] : ['--size', '300M', ...args];
}
