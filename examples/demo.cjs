// Publishes a folder as a template, gives disks to six VMs, and does the same with cp and resize2fs beside it. Run by
// `npm run demo`.
const { execFile, spawnSync } = require('node:child_process');
const { createHash, randomBytes } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const { join } = require('node:path');
const { promisify } = require('node:util');
const zlib = require('node:zlib');
const { RootfsRegistry } = require('../dist/index.js');

const MiB = 1024 * 1024;
const TEMPLATE_BYTES = 256 * MiB;
const GROWN_BYTES = 1024 * MiB;
const SPACE_BYTES = 1536 * MiB;
// An empty XFS, which needs no xfsprogs to be mounted. `npm run demo:disk` makes it.
const DISK = join(__dirname, 'disk.xfs.br');
// A plain user's PATH lacks the folders that e2fsprogs lies in.
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

const VMS = [
  { id: 'vm-1', what: 'the first clone' },
  { id: 'vm-2', what: 'the next' },
  { id: 'vm-3', what: 'the next' },
  { id: 'vm-4', what: 'the first grown', sizeBytes: GROWN_BYTES },
  { id: 'vm-5', what: 'the next grown', sizeBytes: GROWN_BYTES },
  { id: 'vm-6', what: 'from the pool', pooled: true },
];

const folder = fs.mkdtempSync(join(os.tmpdir(), 'microvm-rootfs-demo-'));
const interrupted = new AbortController();
let mountPoint;
process.on('exit', () => {
  if (mountPoint !== undefined) spawnSync('umount', ['--lazy', mountPoint], { env });
  fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    interrupted.abort();
    process.exit(128 + os.constants.signals[signal]);
  });
}

const run = (program, ...args) => promisify(execFile)(program, args, { env, signal: interrupted.signal });
const has = (program) => spawnSync('sh', ['-c', `command -v ${program}`], { env }).status === 0;

function canReflink(path) {
  const [from, to] = [join(path, 'reflink-from'), join(path, 'reflink-to')];
  try {
    fs.writeFileSync(from, Buffer.alloc(4096, 1));
    fs.copyFileSync(from, to, fs.constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    return false;
  } finally {
    for (const file of [from, to]) fs.rmSync(file, { force: true });
  }
}

/** Unpacks the empty XFS. What is zero in it stays a hole. */
async function unpackDisk(path) {
  const disk = fs.createReadStream(DISK).pipe(zlib.createBrotliDecompress({ chunkSize: MiB }));
  const zeros = Buffer.alloc(MiB);
  const file = await fs.promises.open(path, 'wx');
  try {
    let length = 0;
    for await (const chunk of disk) {
      if (!chunk.equals(zeros.subarray(0, chunk.length))) await file.write(chunk, 0, chunk.length, length);
      length += chunk.length;
    }
    await file.truncate(length);
  } finally {
    await file.close();
  }
}

/** Mounts a temporary XFS. Resolves to undefined, or to why it could not and what to do about it. */
async function mountXfs(path) {
  if (process.getuid() !== 0) return ['this is not root, so no XFS can be mounted', 'run it as root'];
  if (!process.argv.includes('--may-mount'))
    return ['this has no mount namespace', 'run it with CAP_SYS_ADMIN'];
  try {
    fs.mkdirSync(path);
    await unpackDisk(`${path}.xfs`);
    mountPoint = path;
    // Two demos at once mount file systems of the same UUID.
    await run('mount', '-t', 'xfs', '-o', 'loop,nouuid', `${path}.xfs`, path);
    return undefined;
  } catch (error) {
    return [
      `no XFS can be mounted (${(error.stderr || error.message).trim()})`,
      'run it where loop devices and XFS work',
    ];
  }
}

/** A folder that can reflink if there is a way to one, and what to say about it. */
async function workspace() {
  if (canReflink(folder)) return { path: folder, words: [`${os.tmpdir()}, which can reflink`] };
  const path = join(folder, 'disk');
  const [obstacle, remedy] = (await mountXfs(path)) ?? [];
  if (obstacle === undefined)
    return { path, own: true, words: ['a temporary XFS, mounted for this demo alone'] };
  const words = [
    `${os.tmpdir()}, which has NO REFLINK, and ${obstacle}.`,
    'Clones are copies that keep holes: stamps, growing, the pool and the checks are shown all the same,',
    'the speed of reflinks is not.',
    `For that: ${remedy}; or set TMPDIR to a folder on XFS or btrfs.`,
  ];
  return { path: folder, words };
}

/** Files of 1 KiB to 2 MiB, some 60 MiB together. */
function makeTree(tree) {
  for (let i = 0; i < 180; i++) {
    const parent = join(tree, 'usr', `lib-${i % 9}`);
    fs.mkdirSync(parent, { recursive: true });
    fs.writeFileSync(join(parent, `file-${i}`), randomBytes(1024 * 2 ** (i % 12)));
  }
}

async function digest(path) {
  const hash = createHash('sha256');
  for await (const chunk of fs.createReadStream(path, { highWaterMark: MiB })) hash.update(chunk);
  return hash.digest('hex');
}

/** One digest of the names and contents of all files below a folder. */
async function digestOfTree(tree) {
  const files = fs
    .readdirSync(tree, { recursive: true })
    .filter((name) => fs.statSync(join(tree, name)).isFile());
  const lines = [];
  for (const name of files.sort()) lines.push(`${await digest(join(tree, name))} ${name}\n`);
  return createHash('sha256').update(lines.join('')).digest('hex');
}

const mib = (bytes) => `${Math.round(bytes / MiB)} MiB`;
const blocksOf = (path) => mib(fs.statSync(path).blocks * 512);

async function usedBytes(path) {
  await run('sync', '-f', path);
  const { blocks, bfree, bsize } = fs.statfsSync(path);
  return (blocks - bfree) * bsize;
}

async function cloneAll(registry) {
  const clones = [];
  for (const { id, sizeBytes, pooled } of VMS) {
    if (pooled) await registry.prewarm('debian', { count: 1 });
    const started = performance.now();
    const clone = await registry.cloneForVm(id, 'debian', { writable: true, sizeBytes });
    const ms = performance.now() - started;
    clones.push({ ...clone, ms, blocks: blocksOf(clone.path) });
  }
  return clones;
}

async function copyAll(template, path) {
  const copies = [];
  for (const { id, sizeBytes } of VMS) {
    const copy = join(path, `${id}.ext4`);
    const started = performance.now();
    await run('cp', '--reflink=auto', template, copy);
    if (sizeBytes !== undefined) {
      fs.truncateSync(copy, sizeBytes);
      await run('resize2fs', '-f', copy);
    }
    const ms = performance.now() - started;
    copies.push({ ms, blocks: blocksOf(copy) });
  }
  return copies;
}

function showTable(clones, copies) {
  const widths = [-7, -17, -9, 9, 9, 12, 12, 12, 9];
  const pad = (cell, width) => (width < 0 ? cell.padEnd(-width) : cell.padStart(width));
  const row = (...cells) => console.log(`  ${cells.map((cell, i) => pad(cell, widths[i])).join('')}`);
  console.log(`\n${' '.repeat(26)}── microvm-rootfs ${'─'.repeat(21)}     ── cp, resize2fs ──`);
  row('VM', '', 'strategy', 'size', 'blocks', 'time', 'blocks', 'time', 'ratio');
  VMS.forEach(({ id, what }, i) => {
    const [clone, copy] = [clones[i], copies[i]];
    const ratio = copy.ms / clone.ms;
    const ours = [clone.strategy, mib(clone.sizeBytes), clone.blocks, `${clone.ms.toFixed(2)} ms`];
    row(
      id,
      what,
      ...ours,
      copy.blocks,
      `${copy.ms.toFixed(2)} ms`,
      `${ratio.toFixed(ratio < 1 ? 2 : ratio < 10 ? 1 : 0)} ×`,
    );
  });
}

/** Throws unless a clone is a sound file system that holds what the template holds. */
async function check(clone, treeDigest) {
  const { path, sizeBytes, sourceSha256 } = clone;
  await run('e2fsck', '-fn', path);
  if (sizeBytes === TEMPLATE_BYTES) {
    if ((await digest(path)) !== sourceSha256) throw new Error(`${path} is not what its stamp says`);
    return;
  }
  const { stdout } = await run('dumpe2fs', '-h', path);
  const field = (name) => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(stdout)?.[1]);
  if (field('Block count') * field('Block size') !== sizeBytes) throw new Error(`${path} is not filled`);
  const dump = fs.mkdtempSync(join(folder, 'dump-'));
  await run('debugfs', '-R', `rdump / ${dump}`, path);
  if ((await digestOfTree(dump)) !== treeDigest) throw new Error(`${path} has other files than the template`);
}

async function main() {
  if (!has('mke2fs')) throw new Error('mke2fs, e2fsck and resize2fs are missing: apt-get install e2fsprogs');
  const { bavail, bsize } = fs.statfsSync(folder);
  if (bavail * bsize < SPACE_BYTES)
    throw new Error(`${os.tmpdir()} has not ${mib(SPACE_BYTES)} free: set TMPDIR`);
  const { path, own, words } = await workspace();
  const tree = join(folder, 'tree');
  const [templateDir, clonesDir] = [join(path, 'templates'), join(path, 'vms')];
  makeTree(tree);
  const treeDigest = await digestOfTree(tree);
  const registry = new RootfsRegistry({ templateDir, clonesDir });
  const started = performance.now();
  const { templatePath, sha256 } = await registry.publishStack('debian', tree, { sizeBytes: TEMPLATE_BYTES });
  const seconds = (performance.now() - started) / 1000;
  console.log(`\n  on        ${words.join('\n            ')}`);
  console.log(
    `  template  ${mib(TEMPLATE_BYTES)} of ext4, ${blocksOf(templatePath)} on disk, sha256 ${sha256.slice(0, 16)}…,\n` +
      `            published from a folder in ${seconds.toFixed(1)} s: made, checked and hashed`,
  );

  const usedBefore = await usedBytes(path);
  const clones = await cloneAll(registry);
  const usedByClones = (await usedBytes(path)) - usedBefore;
  const copies = await copyAll(templatePath, path);
  const usedByCopies = (await usedBytes(path)) - usedBefore - usedByClones;
  showTable(clones, copies);
  console.log(
    '\n  One measurement each (npm run bench takes many). The first grown clone checks its file system and, where',
  );
  console.log('  there is reflink, seals it. Later ones of that size share the sealed image.');
  if (own)
    console.log(
      `  Space taken: ${mib(usedByClones)} with the sealed images, ${mib(usedByCopies)} by cp and resize2fs.`,
    );

  for (const clone of clones) await check(clone, treeDigest);
  if ((await digest(templatePath)) !== sha256) throw new Error('the template has changed');
  console.log(`\n  ✓ e2fsck -fn finds no fault in any of the ${clones.length} clones`);
  console.log('  ✓ each has the digest in its stamp; the grown ones fill their size and hold the same files');
  console.log('  ✓ the template is byte for byte what it was');
  for (const { vmId } of clones) await registry.release(vmId);
  await registry.close();
  console.log('  ✓ all slots are released, and nothing is left behind\n');
}

main().catch((error) => {
  // What a machine lacks is told by its message alone; a fault of the library or of the demo with all there is.
  console.error(error.name === 'Error' ? `demo: ${error.message}` : error);
  process.exitCode = 1;
});
