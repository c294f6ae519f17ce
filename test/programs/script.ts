// A shell script in a folder of the test, which stands for a program.
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Host } from '../fixtures/host.js';

export async function script(host: Host, name: string, body: string): Promise<string> {
  const path = join(host.root, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `#!/bin/sh\n${body}\n`);
  await chmod(path, 0o755);
  return path;
}
