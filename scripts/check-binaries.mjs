#!/usr/bin/env node
// Says what is wrong with the binaries of the addon, and fails if anything is.
//   node scripts/check-binaries.mjs                        the shipped ones: built from these sources?
//   node scripts/check-binaries.mjs --local FILE           a local build: of this architecture, may hold symbols
//   node scripts/check-binaries.mjs --shipped ARCH FILE    a file that is to be shipped for ARCH
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { readElf } from './elf.mjs';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const RECORD = 'prebuilds/SOURCES.sha256';
const ARCHITECTURES = ['x64', 'arm64'];
// Two of these are in every install. A runtime of C++ that gets linked in by accident would add a megabyte; the code
// itself has room to grow.
const SIZE_LIMIT_BYTES = 320_000;
// The largest that a kernel of the architecture can have. A loader refuses a file that is aligned to less, or maps it
// wrong.
const PAGE_BYTES = { x64: 4096, arm64: 65536 };
const REBUILD = 'run "npm run prebuilds"';

const EXPORTS = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];

// Names that the process must provide. The binary asks for no version of them, so each must have been in glibc 2.28 and
// in musl 1.2 with the meaning that it has today. Left out for that reason: stat, fstat, lstat, fstatat (glibc 2.33),
// fcntl64 and the like (not in musl), and renameat2, statx, copy_file_range, openat2 (syscall() serves). Also __*_chk,
// which FORTIFY calls where it knows the size of a buffer and not that of the access: musl lacks them, and no code here
// needs one.
const ALLOWED = new Set([
  '_ITM_deregisterTMCloneTable', // weak, of gcc's start files
  '_ITM_registerTMCloneTable', // weak, likewise
  '__cxa_finalize', // weak, likewise
  '__errno_location',
  '__gmon_start__', // weak, likewise
  '__stack_chk_fail', // ends the process; in every libc under this name
  '__stack_chk_guard', // arm64: the canary; x64 has it in thread-local storage, at one place in glibc and musl
  'abort',
  'close',
  'closedir',
  'fallocate',
  'fchmod',
  'fchmodat',
  'fchown',
  'fcntl',
  'fdatasync',
  'fdopendir',
  'flock',
  'free',
  'fstatfs',
  'fsync',
  'ftruncate',
  'getauxval', // the size of a page; arm64: has the processor SHA-256?
  'getpid',
  'ioctl',
  'lgetxattr',
  'linkat',
  'llistxattr',
  'lremovexattr',
  'lseek',
  'malloc',
  'memchr',
  'memcmp',
  'memcpy',
  'memmove',
  'memset',
  'mkdirat',
  'nanosleep',
  'open',
  'openat',
  'pipe2',
  'posix_fadvise',
  'posix_spawn_file_actions_adddup2', // its types have the same size in both, as those of the other posix_spawn*
  'posix_spawn_file_actions_destroy',
  'posix_spawn_file_actions_init',
  'posix_spawnattr_destroy',
  'posix_spawnattr_init',
  'posix_spawnattr_setflags',
  'posix_spawnattr_setpgroup',
  'posix_spawnattr_setsigdefault',
  'posix_spawnattr_setsigmask',
  'posix_spawnp',
  'pread',
  'pwrite',
  'read',
  'readdir',
  'readlink',
  'readlinkat',
  'renameat',
  'sigemptyset',
  'sigfillset',
  'strcasecmp',
  'strcmp',
  'strlen',
  'sync_file_range',
  'syncfs',
  'syscall',
  'unlinkat',
  'waitpid',
]);
// Node-API up to version 8 has no other prefix, so this also keeps out what newer versions brought (node_api_*).
const isAllowed = (name) => ALLOWED.has(name) || name.startsWith('napi_');

/** What is wrong with one binary. */
export function binaryProblems(path, { arch, shipped }) {
  let elf;
  try {
    elf = readElf(readFileSync(path));
  } catch (error) {
    return [`cannot be read: ${error.message}`];
  }
  const problems = [];
  const expect = (condition, problem) => condition || problems.push(problem);

  expect(elf.machine === arch, `is for ${elf.machine}, not for ${arch}`);
  expect(
    elf.neededCount === 0,
    'needs shared libraries (DT_NEEDED): it must load with any libc and without libstdc++',
  );
  expect(!elf.hasSearchPath, 'has an RPATH or RUNPATH');
  expect(!elf.hasVersionedSymbols, 'asks for versions of symbols, which another libc lacks');
  expect(!elf.hasTextRelocations, 'has text relocations');
  expect(elf.hasRelro, 'has no GNU_RELRO segment (-Wl,-z,relro)');
  const page = PAGE_BYTES[arch];
  expect(
    elf.pageBytes >= page,
    `is laid out for pages of ${elf.pageBytes} bytes, ${arch} has some of ${page}`,
  );
  // What a loader protects is rounded down to whole pages: less than a page is not protected at all.
  expect(
    elf.relroEnd % page === 0,
    `has a GNU_RELRO segment that does not end where a page of ${page} bytes does`,
  );
  expect(elf.bindsNow, 'binds lazily, so RELRO is partial (-Wl,-z,now)');
  expect(!elf.hasExecutableStack, 'wants an executable stack (-Wl,-z,noexecstack)');
  expect(!elf.hasWritableCode, 'has a segment that is writable and executable');
  const names = (list) => list.sort().join(', ');
  const libuv = elf.undefinedSymbols.filter((name) => name.startsWith('uv_'));
  expect(libuv.length === 0, `calls libuv, which is no part of Node-API and not in Deno: ${names(libuv)}`);
  const unknown = elf.undefinedSymbols.filter((name) => !name.startsWith('uv_') && !isAllowed(name));
  expect(
    unknown.length === 0,
    `needs what is not in ALLOWED of scripts/check-binaries.mjs: ${names(unknown)}`,
  );
  const exposed = elf.exportedSymbols.filter((name) => !EXPORTS.includes(name));
  expect(exposed.length === 0, `exports what native/exports.map should hide: ${names(exposed)}`);
  const missing = EXPORTS.filter((name) => !elf.exportedSymbols.includes(name));
  expect(missing.length === 0, `does not export ${names(missing)}`);
  if (shipped) {
    expect(elf.isStripped, 'is not stripped');
    expect(elf.fileBytes <= SIZE_LIMIT_BYTES, `has ${elf.fileBytes} bytes, more than ${SIZE_LIMIT_BYTES}`);
  }
  return problems;
}

/** How the shipped binaries differ from what SOURCES.sha256 says that they are and were built from. */
export function recordProblems(root = ROOT) {
  if (!existsSync(join(root, RECORD))) return [`${RECORD} is missing: ${REBUILD}`];
  const lines = readFileSync(join(root, RECORD), 'utf8').split('\n');
  const recorded = new Map(
    lines.filter((line) => /^[0-9a-f]{64} /.test(line)).map((line) => [line.slice(66), line.slice(0, 64)]),
  );
  const natives = readdirSync(join(root, 'native'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
  const differ = [];
  for (const path of new Set([...recorded.keys(), 'binding.gyp', ...natives, ...binaries(root)])) {
    const found = existsSync(join(root, path)) ? sha256(join(root, path)) : undefined;
    if (found !== recorded.get(path)) differ.push(path);
  }
  const problems = [];
  if (differ.length > 0) {
    problems.push(`the binaries were not built from these sources (${differ.sort().join(', ')}): ${REBUILD}`);
  }
  const addonApi = `node-addon-api ${addonApiVersion(root)}`;
  if (!lines.includes(`# ${addonApi}`))
    problems.push(`the binaries were not built with ${addonApi}: ${REBUILD}`);
  return problems;
}

/** Everything that is wrong with what is shipped. */
export function shippedProblems(root = ROOT) {
  const problems = [];
  for (const arch of ARCHITECTURES) {
    const files = binaries(root).filter((path) => path.startsWith(`prebuilds/linux-${arch}/`));
    if (files.length !== 1)
      problems.push(`prebuilds/linux-${arch} holds ${files.length} binaries, not one: ${REBUILD}`);
    for (const path of files) {
      if (basename(path) !== 'microvm-rootfs.node') problems.push(`${path} has a name that nobody looks for`);
      for (const problem of binaryProblems(join(root, path), { arch, shipped: true }))
        problems.push(`${path} ${problem}`);
    }
  }
  return [...problems, ...recordProblems(root)];
}

function binaries(root) {
  const folder = join(root, 'prebuilds');
  const names = existsSync(folder) ? readdirSync(folder, { recursive: true }) : [];
  return names.filter((name) => name.endsWith('.node')).map((name) => `prebuilds/${name}`);
}

function sha256(path) {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function addonApiVersion(root) {
  return createRequire(join(root, 'package.json'))('node-addon-api/package.json').version;
}

function main([mode, ...args]) {
  switch (mode) {
    case undefined:
      return shippedProblems();
    case '--local':
      return binaryProblems(args[0], { arch: process.arch, shipped: false }).map(
        (problem) => `${args[0]} ${problem}`,
      );
    case '--shipped':
      return binaryProblems(args[1], { arch: args[0], shipped: true }).map(
        (problem) => `${args[1]} ${problem}`,
      );
    default:
      return [`unknown argument ${mode}`];
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const problems = main(process.argv.slice(2));
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exit(1);
  console.log('the binaries are as they must be');
}
