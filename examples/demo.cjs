// Makes a real ext4 template, gives disks to several VMs, grows one, and does the same with cp and resize2fs beside it.
const { execFileSync, spawnSync } = require('node:child_process');
const { createHash, randomBytes } = require('node:crypto');
const fs = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { RootfsRegistry } = require('../dist/index.js');

const MiB = 1024 * 1024;
const TEMPLATE_BYTES = 512 * MiB;
const GROWN_BYTES = 2048 * MiB;
const SYSTEM_PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

function run(program, ...args) {
  return execFileSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: SYSTEM_PATH },
  });
}

function has(program) {
  return spawnSync('sh', ['-c', `command -v ${program}`], { env: { PATH: SYSTEM_PATH } }).status === 0;
}

/** A folder that can reflink: a temporary XFS image where that is possible, else the plain folder. */
function workspace(folder) {
  if (process.getuid() !== 0)
    return {
      path: folder,
      note: 'Not root, so no XFS can be mounted: working in the temporary folder as it is.',
    };
  if (!has('mkfs.xfs'))
    return {
      path: folder,
      note: 'mkfs.xfs is missing (apt-get install xfsprogs): working in the temporary folder as it is.',
    };
  const image = join(folder, 'disk.xfs');
  const path = join(folder, 'disk');
  fs.mkdirSync(path);
  fs.writeFileSync(image, '');
  fs.truncateSync(image, 4096 * MiB);
  run('mkfs.xfs', '-q', '-m', 'reflink=1', image);
  try {
    run('mount', '-o', 'loop', image, path);
  } catch (error) {
    return {
      path: folder,
      note: `XFS cannot be mounted here (${error.stderr.trim()}): working in the temporary folder as it is.`,
    };
  }
  return {
    path,
    unmount: () => run('umount', '--lazy', path),
    note: 'Working on a temporary XFS with reflink, mounted for this demo alone.',
  };
}

/** An ext4 image with a small root file system and some 80 MiB of files. */
function makeTemplate(path) {
  const tree = fs.mkdtempSync(join(tmpdir(), 'rootfs-tree-'));
  try {
    for (const name of ['etc', 'usr', 'var']) fs.mkdirSync(join(tree, name));
    fs.writeFileSync(join(tree, 'etc/hostname'), 'microvm\n');
    for (let i = 0; i < 40; i++) fs.writeFileSync(join(tree, 'usr', `file-${i}`), randomBytes(2 * MiB));
    run('mke2fs', '-q', '-F', '-t', 'ext4', '-d', tree, path, `${TEMPLATE_BYTES / 1024}K`);
  } finally {
    fs.rmSync(tree, { recursive: true });
  }
}

function digest(path) {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(4 * MiB);
  const fd = fs.openSync(path, 'r');
  for (let count = fs.readSync(fd, buffer); count > 0; count = fs.readSync(fd, buffer)) {
    hash.update(buffer.subarray(0, count));
  }
  fs.closeSync(fd);
  return hash.digest('hex');
}

function row(...cells) {
  const widths = [26, 10, 12, 12, 12];
  console.log(
    `  ${cells.map((cell, i) => (i === 0 ? String(cell).padEnd(widths[i]) : String(cell).padStart(widths[i]))).join('')}`,
  );
}

function show(who, strategy, path, ms) {
  const { size, blocks } = fs.statSync(path);
  row(who, strategy, `${size / MiB} MiB`, `${((blocks * 512) / MiB).toFixed(0)} MiB`, `${ms.toFixed(2)} ms`);
}

async function timed(work) {
  const start = performance.now();
  const result = await work();
  return { result, ms: performance.now() - start };
}

async function main(folder) {
  const disk = workspace(folder);
  unmount = disk.unmount;
  console.log(`\n${disk.note}\n`);
  const templateDir = join(disk.path, 'templates');
  const template = join(templateDir, 'debian', 'rootfs.ext4');
  fs.mkdirSync(join(templateDir, 'debian'), { recursive: true });
  makeTemplate(template);
  const before = digest(template);

  const registry = new RootfsRegistry({ templateDir, clonesDir: join(disk.path, 'vms') });
  row('microvm-rootfs', 'strategy', 'size', 'blocks', 'time');
  const clone = (id, size) =>
    timed(() =>
      size === undefined
        ? registry.cloneForVm(id, 'debian', { writable: true })
        : registry.cloneForVmWithSize(id, 'debian', size, { writable: true }),
    );
  const disks = [];
  for (const [label, id, size] of [
    ['vm-1 (hashes and seals)', 'vm-1'],
    ['vm-2', 'vm-2'],
    ['vm-3', 'vm-3'],
    ['vm-4', 'vm-4'],
    ['vm-5, grown (the first)', 'vm-5', GROWN_BYTES],
    ['vm-6, grown', 'vm-6', GROWN_BYTES],
  ]) {
    const { result, ms } = await clone(id, size);
    disks.push(result);
    show(label, result.strategy, result.path, ms);
  }
  await registry.prewarm('debian', { count: 2 });
  const pooled = await clone('vm-7');
  disks.push(pooled.result);
  show(
    'vm-7, from the pool',
    pooled.result.pooled ? 'pooled' : pooled.result.strategy,
    pooled.result.path,
    pooled.ms,
  );

  console.log('');
  row('cp and resize2fs', '', 'size', 'blocks', 'time');
  for (const id of ['vm-1', 'vm-2', 'vm-3']) {
    const path = join(disk.path, `${id}.ext4`);
    const { ms } = await timed(() => run('cp', '--reflink=auto', template, path));
    show(id, '', path, ms);
  }
  const grown = join(disk.path, 'vm-5.ext4');
  const { ms } = await timed(() => {
    run('cp', '--reflink=auto', template, grown);
    fs.truncateSync(grown, GROWN_BYTES);
    run('resize2fs', '-f', grown);
  });
  show('vm-5, grown', '', grown, ms);

  console.log('\nChecking:');
  for (const { path, sizeBytes, sourceSha256 } of disks) {
    run('e2fsck', '-fn', path);
    if (sizeBytes === TEMPLATE_BYTES && digest(path) !== sourceSha256)
      throw new Error(`${path} is not what its stamp says`);
  }
  console.log(
    `  ${disks.length} clones: e2fsck finds no fault, and each holds the bytes that its stamp names.`,
  );
  if (digest(template) !== before) throw new Error('the template has changed');
  console.log('  The template is what it was.');
  for (const { vmId } of disks) await registry.release(vmId);
  await registry.close();
  console.log('  All released, nothing left behind.\n');
}

if (!has('mke2fs')) {
  console.error('mke2fs, e2fsck and resize2fs are missing: apt-get install e2fsprogs');
  process.exit(1);
}
const folder = fs.mkdtempSync(join(tmpdir(), 'microvm-rootfs-demo-'));
let unmount;
process.on('exit', () => {
  unmount?.();
  fs.rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));
main(folder).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
