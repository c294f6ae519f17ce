// Once for a run: builds the package for the tests that use it as its users do, and makes the filesystems.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { type Filesystem, makeFilesystems } from './fixtures/filesystems.js';

declare module 'vitest' {
  interface ProvidedContext {
    filesystems: readonly Filesystem[];
    /** Where tests work that are not about any filesystem. */
    scratch: string;
  }
}

export default function setup(project: TestProject): () => void {
  buildPackage();
  const filesystems = makeFilesystems(mkdtempSync(join(tmpdir(), 'filesystems-')));
  project.provide('filesystems', filesystems.table);
  project.provide('scratch', filesystems.table.find(({ name }) => name === 'ext4')?.path || tmpdir());
  return () => filesystems.dispose();
}

function buildPackage(): void {
  const built = 'dist/index.js';
  const newest = Math.max(newestIn('src'), statSync('tsconfig.build.json').mtimeMs);
  if (existsSync(built) && newest <= statSync(built).mtimeMs) return;
  execFileSync('npm', ['run', '--silent', 'build:ts'], { stdio: 'inherit' });
}

function newestIn(folder: string): number {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  return Math.max(...files.map((file) => statSync(join(folder, file)).mtimeMs));
}
