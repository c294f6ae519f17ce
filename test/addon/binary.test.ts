// The addon's binaries, as the loader of any host sees them: the local build, what is shipped, and that the check finds
// what it is for.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const BUILT = 'build/Release/microvm_rootfs.node';
const SHIPPED = (arch: string) => `prebuilds/linux-${arch}/microvm-rootfs.node`;
const CHECK = 'scripts/check-binaries.mjs';

/** What the check says, line by line; nothing if all is well. */
function check(args: readonly string[] = [], script = CHECK): string[] {
  const { status, stderr } = spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
  const problems = stderr.split('\n').filter((line) => line !== '');
  expect(status).toBe(problems.length === 0 ? 0 : 1);
  return problems;
}

test('the local build loads everywhere', (context) => {
  if (!existsSync(BUILT)) context.skip('nothing was built here: npm run build:addon');
  expect(check(['--local', BUILT])).toEqual([]);
});

const shipped = existsSync(SHIPPED('x64'));
const reason = 'nothing is shipped yet: npm run prebuilds';

test('what is shipped loads everywhere, and was built from these sources', (context) => {
  if (!shipped) context.skip(reason);
  expect(check()).toEqual([]);
});

describe('the check finds', () => {
  let folder: string;
  beforeEach((context) => {
    if (!shipped) context.skip(reason);
    folder = mkdtempSync(join(tmpdir(), 'binary-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** What it says about the shipped file for x64 after a change to it. */
  function checkChanged(change: (bytes: Buffer) => unknown): string[] {
    const bytes = readFileSync(SHIPPED('x64'));
    const changed = change(bytes);
    const path = join(folder, 'changed.node');
    writeFileSync(path, Buffer.isBuffer(changed) ? changed : bytes);
    return check(['--shipped', 'x64', path]).map((problem) => problem.replace(`${path} `, ''));
  }

  const renameSymbol = (from: string, to: string) => (bytes: Buffer) => {
    bytes.write(`${to}\0`, bytes.indexOf(`\0${from}\0`) + 1, 'latin1');
  };
  const changeSegment = (type: number, field: number, value: number) => (bytes: Buffer) => {
    const start = Number(bytes.readBigUInt64LE(0x20));
    const count = bytes.readUInt16LE(0x38);
    const headers = Array.from({ length: count }, (_, index) => start + index * 56);
    bytes.writeUInt32LE(value, (headers.find((at) => bytes.readUInt32LE(at) === type) ?? 0) + field);
  };
  const changeTag = (from: number, to: number) => (bytes: Buffer) => {
    const dynamic = Buffer.alloc(8);
    dynamic.writeBigUInt64LE(BigInt(from));
    bytes.writeBigUInt64LE(BigInt(to), bytes.lastIndexOf(dynamic));
  };
  const DT_NEEDED = 1;
  const DT_RELACOUNT = 0x6ffffff9;
  const PT_NULL = 0;
  const PT_LOAD = 1;
  const P_MEMSZ = 40;
  const P_ALIGN = 48;
  const PT_GNU_STACK = 0x6474e551;
  const PT_GNU_RELRO = 0x6474e552;

  test.each([
    ['another processor', (bytes: Buffer) => bytes.writeUInt16LE(183, 18), 'is for arm64, not for x64'],
    ['a symbol of newer libcs', renameSymbol('flock', 'fstat'), 'needs what is not in ALLOWED of'],
    ['a call into libuv', renameSymbol('close', 'uv_up'), 'calls libuv'],
    ['an export', renameSymbol('napi_register_module_v1', 'napi_register_module_v2'), 'exports what'],
    ['a library to be loaded', changeTag(DT_RELACOUNT, DT_NEEDED), 'needs shared libraries'],
    ['an executable stack', changeSegment(PT_GNU_STACK, 4, 7), 'wants an executable stack'],
    ['no RELRO', changeSegment(PT_GNU_RELRO, 0, PT_NULL), 'has no GNU_RELRO segment'],
    ['RELRO that ends within a page', changeSegment(PT_GNU_RELRO, P_MEMSZ, 8), 'does not end where a page'],
    ['too small a page', changeSegment(PT_LOAD, P_ALIGN, 16), 'is laid out for pages of 16 bytes'],
    [
      'more than is needed',
      (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(320_000)]),
      'bytes, more than',
    ],
    ['a file of another kind', (bytes: Buffer) => bytes.write('text'), 'cannot be read: not a 64-bit'],
  ])('%s', (_what, change, problem) => {
    expect(checkChanged(change)[0]).toContain(problem);
  });

  test('symbols that were not stripped', (context) => {
    if (!existsSync(BUILT) || process.arch !== 'x64') context.skip('needs a local build for x64');
    expect(check(['--shipped', 'x64', BUILT])).toContain(`${BUILT} is not stripped`);
  });

  test('sources that changed, and says how to build anew', () => {
    for (const name of ['scripts', 'native', 'binding.gyp', 'package.json', 'prebuilds']) {
      cpSync(name, join(folder, name), { recursive: true });
    }
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(resolve('node_modules/node-addon-api'), join(folder, 'node_modules/node-addon-api'));
    writeFileSync(join(folder, 'native/new.cc'), '');
    const problems = check([], join(folder, CHECK));
    expect(problems.join()).toMatch(
      /not built from these sources \(.*native\/new\.cc.*\): run "npm run prebuilds"/,
    );
  });
});
