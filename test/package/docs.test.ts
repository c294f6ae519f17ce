// What the documents say is true: every code block is run as its reader would, every link leads somewhere. A block that
// is not run says why behind its language (`sh no-run=needs-firecracker`), and at least its syntax is checked.
//
//   js, cjs        run as a module of a project that has the package; `continues`: one program with the block before
//   sh             typed into a shell
//   text output    what the block before printed; `…` stands for anything
//   json           parsed
//   ts             a declaration, which the compiler wrote
//   text           neither code nor a command
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CodeBlock, documents, readDocument } from '../fixtures/documents.js';
import { Workspace } from '../fixtures/filesystems.js';
import { ReaderHost, syntaxErrorOf } from '../fixtures/reader-host.js';
import { REGISTRY_TOOLS } from '../fixtures/reader-registry.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const LANGUAGES = ['js', 'cjs', 'ts', 'sh', 'json', 'text'];
const TOOLS = ['mkfs.xfs', 'mke2fs', 'resize2fs', 'tar', 'zstd'] as const;

/** One program, and what it is said to print. */
interface Run {
  readonly line: number;
  readonly language: string;
  readonly source: string;
  readonly output: string | undefined;
  readonly noRun: string | undefined;
}

function runsOf(blocks: readonly CodeBlock[]): Run[] {
  const runs: Run[] = [];
  for (const { line, language, marks, text } of blocks) {
    const before = runs.at(-1);
    if (marks.has('output') || marks.has('continues')) {
      if (before === undefined) throw new Error(`line ${line}: there is no block before this one`);
      const more = marks.has('output') ? { output: text } : { source: `${before.source}\n${text}` };
      runs[runs.length - 1] = { ...before, ...more };
    } else if (language !== 'text' && language !== 'ts') {
      runs.push({ line, language, source: text, output: undefined, noRun: marks.get('no-run') });
    }
  }
  return runs;
}

/** Lines as they are said to be, `…` standing for anything. */
function pattern(output: string): RegExp {
  const quoted = output
    .trimEnd()
    .split('…')
    .map((text) => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  return new RegExp(`^${quoted.join('.*')}\\n*$`);
}

describe.each(documents().map(readDocument))('$path', (document) => {
  const runs = runsOf(document.blocks);

  test('every code block says what it is, and why if it is not run', () => {
    expect(document.indentedCode, 'lines of code without a fence').toEqual([]);
    for (const { line, language, marks } of document.blocks) {
      expect(LANGUAGES, `${document.path}:${line}`).toContain(language);
      for (const [mark, value] of marks) {
        expect(['continues', 'output', 'no-run'], `${document.path}:${line}`).toContain(mark);
        if (mark === 'no-run') expect(value, `${document.path}:${line}`).toMatch(/^[a-z0-9-]+$/);
      }
    }
  });

  for (const { line, language, source, noRun } of runs.filter(({ noRun }) => noRun !== undefined)) {
    test(`line ${line} is not run: ${noRun}`, () => {
      expect(syntaxErrorOf(language, source)).toBe('');
    });
  }

  for (const { line, source } of runs.filter(({ language }) => language === 'json')) {
    test(`line ${line} is JSON, line by line or as a whole`, () => {
      const texts = source
        .trim()
        .split('\n')
        .every((text) => /^\{.*\}$/.test(text))
        ? source.trim().split('\n')
        : [source];
      for (const text of texts) JSON.parse(text);
    });
  }

  const programs = runs.filter(({ language, noRun }) => language !== 'json' && noRun === undefined);
  const needsRegistry = programs.some(({ source }) => /docker:\/\/|registry\.example/.test(source));
  const missing = lacksRoot() ?? lacks(...TOOLS, ...(needsRegistry ? REGISTRY_TOOLS : []));
  const doWhatTheySay = `its blocks do what they say${missing === undefined ? '' : ` (${missing})`}`;
  if (programs.length > 0) {
    describe.skipIf(missing !== undefined)(doWhatTheySay, () => runInOrder(programs, needsRegistry));
  }

  test('its links lead somewhere', () => {
    for (const { line, target } of document.links) {
      const where = `${document.path}:${line}: ${target}`;
      if (/^[a-z]+:/.test(target)) {
        expect(new URL(target).protocol, where).toMatch(/^(https|mailto):$/);
        continue;
      }
      const [file = '', anchor] = target.split('#', 2);
      const path = file === '' ? document.path : normalize(join(dirname(document.path), file));
      expect(existsSync(path), where).toBe(true);
      if (anchor !== undefined) expect([...readDocument(path).anchors], where).toContain(anchor);
    }
  });
});

/** As one reader runs them, on one host. */
function runInOrder(programs: readonly Run[], needsRegistry: boolean): void {
  const root = mkdtempSync(join(tmpdir(), 'reader-'));
  const workspace = new Workspace(join(root, 'disks'));
  let host: ReaderHost;
  beforeAll(async () => {
    mkdirSync(join(root, 'disks'));
    host = await ReaderHost.in(workspace, root, needsRegistry);
  });
  afterAll(async () => {
    await host?.leave();
    workspace.dispose();
    rmSync(root, { recursive: true, force: true });
  });

  for (const { line, language, source, output } of programs) {
    test(`line ${line}`, { timeout: 120_000 }, async () => {
      const done =
        language === 'sh' ? host.shell(source) : host.program(source, language === 'cjs' ? 'cjs' : 'mjs');
      const { code, signal, stdout, stderr } = await done;
      expect({ code, signal }, `${stdout}${stderr}`).toEqual({ code: 0, signal: null });
      if (output !== undefined) expect(stdout).toMatch(pattern(output));
    });
  }
}

test('blocks that are not run are listed, each with its reason', () => {
  const list = documents()
    .map(readDocument)
    .flatMap(({ path, blocks }) =>
      blocks.flatMap(({ line, marks }) =>
        marks.has('no-run') ? [`${path}:${line} ${marks.get('no-run')}`] : [],
      ),
    );
  console.log(`Not run:\n${list.join('\n')}`);
});

test('docs/cli.md tells of every command', () => {
  const table = readFileSync('docs/cli.md', 'utf8').split('\n## ')[0] ?? '';
  const help = execFileSync(process.execPath, ['dist/cli/main.js', '--help'], { encoding: 'utf8' });
  const names = [...help.matchAll(/^ {2}([a-z][a-z-]+)(?: [[<].*)? {2}/gm)].map(([, name]) => name);
  expect(names.length).toBeGreaterThan(10);
  for (const name of names) if (name !== 'help') expect(table).toMatch(new RegExp(`[|,] \`${name}[ \`]`));
});

function errorCodes(): string[] {
  const union =
    /export type RootfsErrorCode =([^;]+);/.exec(readFileSync('src/system/errors.ts', 'utf8'))?.[1] ?? '';
  return [...union.matchAll(/'([A-Z0-9_]+)'/g)].map(([, code = '']) => code);
}

test('docs/cli.md has the exit status of every code that the library has', () => {
  const table = readFileSync('docs/cli.md', 'utf8').split('\n## Exit status')[1]?.split('\n## ')[0] ?? '';
  const told = new Set([...table.matchAll(/`([A-Z0-9_]+)`/g)].map(([, code = '']) => code));
  expect(errorCodes().filter((code) => !told.has(code))).toEqual([]);
});

test('docs/troubleshooting.md tells of every warning', async () => {
  const sources = await readdir('src', { recursive: true });
  const codes = sources
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => [
      ...readFileSync(join('src', name), 'utf8').matchAll(/code: '(MICROVM_ROOTFS_[A-Z_]+)'/g),
    ])
    .map(([, code = '']) => code);
  expect(codes.length).toBeGreaterThan(8);
  const text = readFileSync('docs/troubleshooting.md', 'utf8');
  expect(codes.filter((code) => !text.includes(`a warning \`${code}\``))).toEqual([]);
});

test('docs/troubleshooting.md tells of every code that the library has, and of no other', () => {
  const codes = errorCodes();
  const text = readFileSync('docs/troubleshooting.md', 'utf8').split('\n## The system’s codes')[0] ?? '';
  const told = [...text.matchAll(/^\| `([A-Z0-9_]+)` \|/gm)].map(([, code]) => code);
  expect(codes.length).toBeGreaterThan(30);
  expect([...told].sort()).toEqual([...codes].sort());
});

test('docs/troubleshooting.md tells of every code of the system that messages have advice for', () => {
  const advice =
    /^const ADVICE[^{]*\{(.+?)^\};/ms.exec(readFileSync('src/system/errno-advice.ts', 'utf8'))?.[1] ?? '';
  const codes = [...advice.matchAll(/^ {2}(E[A-Z0-9]+): /gm)].map(([, code = '']) => code);
  const text = readFileSync('docs/troubleshooting.md', 'utf8');
  const table = text.split('\n## The system’s codes')[1]?.split('\n## ')[0] ?? '';
  const told = table.split('\n').flatMap((row) => row.split(' | ')[0]?.match(/`E[A-Z0-9]+`/g) ?? []);
  expect(codes.length).toBeGreaterThan(20);
  expect(codes.filter((code) => !told.includes(`\`${code}\``))).toEqual([]);
});
