// Two hosts and a registry on this machine: pushes a template, pulls it, pushes an update, pulls that, and does the
// same with skopeo and zstd beside it. Run by `npm run demo:fleet`.
const { execFile, spawn, spawnSync } = require('node:child_process');
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const { join } = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { promisify } = require('node:util');
const { RootfsRegistry } = require('../dist/index.js');

const MiB = 1024 * 1024;
const TREE_BYTES = Number(process.env.DEMO_MEGABYTES ?? 192) * MiB;
/** Of a hundred files, so many change in the update. */
const CHANGED_PERCENT = 4;
const PROGRAMS = {
  'docker-registry': 'docker-registry',
  skopeo: 'skopeo',
  zstd: 'zstd',
  mke2fs: 'e2fsprogs',
};
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

const missing = Object.keys(PROGRAMS).filter(
  (program) => spawnSync('sh', ['-c', `command -v ${program}`], { env }).status !== 0,
);
if (missing.length > 0) {
  const packages = missing.map((program) => PROGRAMS[program]).join(' ');
  console.error(`demo: ${missing.join(', ')} missing: apt-get install ${packages}`);
  process.exit(1);
}

const folder = fs.mkdtempSync(join(os.tmpdir(), 'microvm-rootfs-fleet-'));
let server;
process.on('exit', () => {
  server?.kill('SIGKILL');
  fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => process.exit(128 + os.constants.signals[signal]));

const run = (program, ...args) => promisify(execFile)(program, args, { env, cwd: folder });
const at = (...parts) => join(folder, ...parts);

async function startRegistry() {
  const free = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => free.once('listening', resolve));
  const host = `127.0.0.1:${free.address().port}`;
  await new Promise((resolve) => free.close(resolve));
  const config = `version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: ${at('registry')} } }
http: { addr: ${host} }
`;
  fs.writeFileSync(at('registry.yml'), config);
  server = spawn('docker-registry', ['serve', at('registry.yml')], { stdio: 'ignore', env });
  for (let tries = 0; tries < 500; tries++) {
    if (
      await fetch(`http://${host}/v2/`).then(
        () => true,
        () => false,
      )
    )
      return host;
    await sleep(20);
  }
  throw new Error('docker-registry does not answer');
}

/** Programs and libraries of this machine, which compress as those of any template do. */
function makeTree(tree) {
  let bytes = 0;
  const files = [];
  for (const source of ['/usr/bin', '/usr/lib', '/usr/share']) {
    for (const entry of fs.readdirSync(source, { withFileTypes: true, recursive: true })) {
      const from = join(entry.parentPath ?? entry.path, entry.name);
      const size = entry.isFile() ? fs.statSync(from).size : 0;
      if (size === 0 || size > 16 * MiB || bytes + size > TREE_BYTES) continue;
      const to = join(tree, from);
      fs.mkdirSync(join(to, '..'), { recursive: true });
      fs.copyFileSync(from, to);
      bytes += size;
      files.push(to);
    }
  }
  return files;
}

/** What an upgrade does: some files get other contents and lengths. */
function changeSome(files) {
  for (const [i, file] of files.entries()) {
    if (i % 100 >= CHANGED_PERCENT) continue;
    const content = fs.readFileSync(file);
    fs.writeFileSync(
      file,
      Buffer.concat([content.subarray(content.length / 2), content.subarray(0, content.length / 3)]),
    );
  }
}

async function timed(work) {
  const start = performance.now();
  const result = await work();
  return { result, seconds: (performance.now() - start) / 1000 };
}

/** The image as one zstd blob in an OCI layout, for skopeo to copy. */
async function asOneBlob(image, layout) {
  fs.mkdirSync(at(layout, 'blobs/sha256'), { recursive: true });
  fs.writeFileSync(at(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await run('zstd', '-q', '-3', '-T0', image, '-o', at(layout, 'blob'));
  const add = (mediaType, content) => {
    const digest = createHash('sha256').update(content).digest('hex');
    fs.writeFileSync(at(layout, 'blobs/sha256', digest), content);
    return { mediaType, digest: `sha256:${digest}`, size: content.length };
  };
  const blob = add('application/vnd.example.disk.raw+zstd', fs.readFileSync(at(layout, 'blob')));
  const config = add('application/vnd.oci.empty.v1+json', Buffer.from('{}'));
  const type = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = { schemaVersion: 2, mediaType: type, config, layers: [blob] };
  const entry = {
    ...add(type, Buffer.from(JSON.stringify(manifest))),
    annotations: { 'org.opencontainers.image.ref.name': 'x' },
  };
  fs.writeFileSync(at(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  return blob;
}

async function main() {
  const registry = await startRegistry();
  const registries = { [registry]: { insecure: true } };
  const host = (name) =>
    new RootfsRegistry({ templateDir: at(name, 'templates'), clonesDir: at(name, 'vms'), registries });
  const [a, b] = [host('a'), host('b')];
  const rows = [];
  const files = makeTree(at('tree'));
  for (const [version, what] of [
    ['1', 'template'],
    ['2', 'update'],
  ]) {
    if (version === '2') changeSome(files);
    const { sha256, templatePath, sizeBytes } = await a.publishStack('debian', at('tree'), { replace: true });
    if (version === '1')
      console.log(`${files.length} files in an image of ${Math.round(sizeBytes / MiB)} MiB`);
    const reference = `${registry}/debian:${version}`;
    const push = await timed(() => a.pushStack('debian', reference));
    const pull = await timed(() => b.pullStack(reference, { replace: true }));
    if (pull.result.sha256 !== sha256) throw new Error('the pulled image differs');
    rows.push([`push the ${what}`, push.result.uploadedBytes, push.seconds]);
    rows.push([`pull the ${what}`, pull.result.downloadedBytes, pull.seconds]);

    const layout = `layout-${version}`;
    const blob = await timed(() => asOneBlob(templatePath, layout));
    const whole = `docker://${registry}/whole:${version}`;
    const sent = await timed(() =>
      run('skopeo', 'copy', '-q', '--dest-tls-verify=false', `oci:${layout}:x`, whole),
    );
    const fetched = await timed(async () => {
      await run('skopeo', 'copy', '-q', '--src-tls-verify=false', whole, `dir:fetched-${version}`);
      const file = at(`fetched-${version}`, blob.result.digest.slice('sha256:'.length));
      await run('zstd', '-q', '-d', '--sparse', file, '-o', at(`restored-${version}`));
    });
    rows.at(-2).push(blob.result.size, blob.seconds + sent.seconds);
    rows.at(-1).push(blob.result.size, fetched.seconds);
  }
  const disk = await b.cloneForVm('vm-1', 'debian', { writable: true });
  print(rows);
  console.log(`\nVM vm-1 on host B has a disk of the update: ${disk.strategy}`);
  await Promise.all([a.close(), b.close()]);
}

function print(rows) {
  const cells = (bytes, seconds) =>
    `${(bytes / MiB).toFixed(1).padStart(8)} MiB ${seconds.toFixed(2).padStart(7)} s`;
  console.log(`\n${''.padEnd(18)}${'microvm-rootfs'.padStart(22)}${'zstd and skopeo'.padStart(26)}`);
  for (const [what, bytes, seconds, otherBytes, otherSeconds] of rows)
    console.log(`${what.padEnd(18)}${cells(bytes, seconds)}    ${cells(otherBytes, otherSeconds)}`);
  console.log(
    '\nA pull by microvm-rootfs also checks the image with SHA-256 and e2fsck, and flushes it to the disk.',
  );
}

main().then(
  () => process.exit(),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
