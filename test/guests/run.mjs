// npm run test:guests -- [--guest PATTERN] [--filesystem PATTERN] [--cache FOLDER] [FILE… | --bench [MEASURE…]]
//
// The conformance suite, or the given test files, or the benchmark, on file systems and kernels that this machine has
// not: in guests of QEMU, each on a kernel of Debian and with this machine's own files as its root. Prints a row for
// each kernel and file system, and fails if one does. docs/support.md has its tables.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { bench, isForBench } from './bench.mjs';
import { suite } from './suite.mjs';
import { GUESTS } from './table.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const REPOSITORY = resolve(HERE, '../..');
const DISK_BYTES = 2 * 1024 ** 3;
const GUEST_TIMEOUT_MS = 3 * 3600_000;
const WHAT_COLUMNS = 60;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    guest: { type: 'string', default: '' },
    filesystem: { type: 'string', default: '' },
    bench: { type: 'boolean', default: false },
    cache: { type: 'string', default: join(REPOSITORY, '.cache/guests') },
  },
});
const cache = resolve(values.cache);

/** What is run in a guest. */
function workOf(guest) {
  if (values.bench) return bench(positionals);
  return suite(positionals.length > 0 ? positionals : guest.files);
}

/** Runs one of the scripts beside this one, which prints the folder that it made. */
function make(script, ...args) {
  const output = execFileSync('bash', [join(HERE, script), cache, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return output.toString().trimEnd().split('\n').at(-1);
}

class CannotRun extends Error {}

function makeOrSay(script, ...args) {
  try {
    return make(script, ...args);
  } catch (error) {
    throw new CannotRun(error.status === 77 ? 'said above' : `${script} failed`);
  }
}

/** Folders with programs and modules that Debian 12 lacks. */
function makeExtra(extra, kernel) {
  if (extra === 'bcachefs') return { path: makeOrSay('make-bcachefs.sh') };
  if (extra === 'zfs') return { path: makeOrSay('make-zfs.sh', kernel) };
  return { path: '' };
}

function makeDisk(path, mkfs, extra) {
  closeSync(openSync(path, 'w'));
  truncateSync(path, DISK_BYTES);
  const PATH = `${extra.path}:${process.env.PATH}:/usr/sbin:/sbin`;
  try {
    execFileSync(mkfs[0], [...mkfs.slice(1), path], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, PATH },
    });
  } catch (error) {
    throw new CannotRun(error.code === 'ENOENT' ? `needs ${mkfs[0]}` : error.message);
  }
}

/** What inside.sh reads. Returns the disks. */
function prepare(folder, guest, work, filesystems, extra) {
  const disks = [];
  const lines = [`PATH=${extra.path}:$PATH`, guest.before ?? ''];
  const rows = filesystems.map(({ mkfs, mount, ...row }, index) => {
    const path = `/fs/${index}`;
    lines.push(`mkdir -p ${path}`);
    if (mkfs !== undefined) {
      const disk = join(folder, `${index}.img`);
      makeDisk(disk, mkfs, extra);
      lines.push(`disk=/dev/vd${String.fromCharCode(97 + disks.length)}`);
      disks.push(disk);
    }
    lines.push(mount(path), `chmod 755 ${path}`);
    return { ...row, path };
  });
  lines.push(guest.after ?? '');
  const contents = {
    'mount.sh': `${lines.join('\n')}\n`,
    'rows.json': JSON.stringify(rows),
    commands: work
      .commands(rows)
      .map((line) => `${line}\n`)
      .join(''),
    node: process.execPath,
    repository: REPOSITORY,
    password: 'password',
  };
  for (const [name, text] of Object.entries(contents)) writeFileSync(join(folder, name), text);
  return disks;
}

async function boot(kernel, folder, disks) {
  const share = (id, path, tag, options) => [
    ...['-fsdev', `local,id=${id},path=${path},security_model=none,multidevs=remap${options}`],
    ...['-device', `virtio-9p-pci,fsdev=${id},mount_tag=${tag}`],
  ];
  const qemu = spawn(
    'qemu-system-x86_64',
    [
      ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max,la57=off', '-m', '4096', '-smp', '2'],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
      ...share('host', '/', 'host', ',readonly=on'),
      ...share('guest', folder, 'guest', ''),
      ...disks.flatMap((disk, index) => [
        ...['-drive', `if=none,id=disk${index},file=${disk},format=raw,cache=unsafe`],
        ...['-device', `virtio-blk-pci,drive=disk${index}`],
      ]),
      ...['-kernel', join(kernel, `vmlinuz`), '-initrd', join(kernel, 'initramfs')],
      '-append',
      `console=ttyS0 quiet panic=-1 guest.modules=${kernel}/lib/modules guest.script=${HERE}/inside.sh guest.end`,
    ],
    { stdio: ['ignore', openSync(join(folder, 'console'), 'w'), 'inherit'] },
  );
  const timer = setTimeout(() => qemu.kill('SIGKILL'), GUEST_TIMEOUT_MS);
  await once(qemu, 'close');
  clearTimeout(timer);
}

function read(path) {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

const outcomes = [];

function printRow([what, ...cells]) {
  console.log(`| ${[what.padEnd(WHAT_COLUMNS), ...cells].join(' | ')} |`);
}

function reportGuest(guest, work, filesystems, folder, minutes) {
  const release = read(join(folder, 'release'));
  filesystems.forEach(({ name }, index) => {
    const { cells, passed } = work.cells(folder, name, index);
    outcomes.push(passed);
    printRow([`Linux ${release ?? `of ${guest.name}`}, ${name}`, ...cells]);
  });
  console.error(`${guest.name}: ${minutes} minutes, its log is ${folder}/log`);
}

async function runGuest(guest) {
  const filesystems = guest.filesystems
    .filter(({ name }) => new RegExp(values.filesystem).test(name))
    .filter((filesystem) => !values.bench || isForBench(guest, filesystem));
  if (filesystems.length === 0) return;
  const folder = mkdtempSync(join(cache, 'run-'));
  const work = workOf(guest);
  const started = Date.now();
  try {
    const kernel = makeOrSay('make-kernel.sh', guest.kernel);
    const extra = makeExtra(guest.extra, kernel);
    await boot(kernel, folder, prepare(folder, guest, work, filesystems, extra));
    reportGuest(guest, work, filesystems, folder, Math.round((Date.now() - started) / 60_000));
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    outcomes.push(false);
    for (const { name } of filesystems)
      printRow([`Linux of ${guest.name}, ${name}`, `could not run: ${error.message}`]);
  }
  for (let disk = 0; disk < filesystems.length; disk++) rmSync(join(folder, `${disk}.img`), { force: true });
}

// What is out of date is built anew in the guest, where that takes long.
if (!existsSync(join(REPOSITORY, 'dist/index.js'))) throw new Error('run this first: npm run build');
if (process.getuid() !== 0)
  throw new Error("needs root: it hands this machine's files to guests, whoever they belong to");
mkdirSync(cache, { recursive: true });
const { header } = workOf({});
printRow(header);
console.log(`|${header.map(() => ' --- |').join('')}`);
for (const guest of GUESTS.filter(({ name }) => new RegExp(values.guest).test(name))) await runGuest(guest);
process.exitCode = outcomes.length > 0 && outcomes.every((passed) => passed) ? 0 : 1;
