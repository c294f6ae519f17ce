// Ways to have one system call of one caller killed or failed, once: a thread by strace from outside, a program by a
// wrapper.
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RootfsConfig } from '../../src/index.js';
import { findTool } from '../fixtures/tools.js';
import type { Threads } from './performer.js';
import type { Caller } from './points.js';
import type { Site } from './site.js';
import { attach, type Injection, injectionArgs, type Trace } from './strace.js';

/** Is armed before the call that it is for, and tells afterwards what it saw. */
export interface Injector {
  readonly config: Partial<RootfsConfig>;
  arm(threads: Threads): Promise<Trace>;
}

/** Without an injection it only looks. */
export async function injectorFor(caller: Caller, site: Site, injection?: Injection): Promise<Injector> {
  if (caller === 'pool' || caller === 'process')
    return { config: site.config, arm: (threads) => attach(threads[caller], injection) };
  const log = join(site.root, 'strace.log');
  const args = injection === undefined ? [] : injectionArgs(injection).map((arg) => `'${arg}'`);
  const program = findTool(caller) ?? caller;
  const traced = ['strace', '-y', '-s', '64', '-o', log, ...args, program, '"$@"'].join(' ');
  return wrapped(caller, site, `exec ${traced}`, async () => {
    const text = await readFile(log, 'utf8').catch(() => '');
    return text.split('\n');
  });
}

/** A program whose first run, once it is armed, is another. */
export async function wrapped(
  caller: 'resize2fs' | 'e2fsck',
  site: Site,
  armedBody: string,
  lines: () => Promise<string[]> = async () => [],
): Promise<Injector> {
  const path = join(site.root, `${caller}.sh`);
  const armed = `${path}.armed`;
  const program = findTool(caller) ?? caller;
  await writeFile(
    path,
    `#!/bin/sh\nif rm ${armed} 2>/dev/null; then\n${armedBody}\nfi\nexec ${program} "$@"\n`,
  );
  await chmod(path, 0o755);
  return {
    config: { ...site.config, [`${caller}Bin`]: path },
    async arm() {
      await writeFile(armed, '');
      return {
        async end() {
          await rm(armed, { force: true });
          return lines();
        },
      };
    },
  };
}
