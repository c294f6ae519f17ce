// Sources in every form: all parts of what is compressed count, and what is no image is named for what it is.
import { execFile } from 'node:child_process';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { cli } from '../cli/run-cli.js';
import { exitOf, printed, startChild } from '../fixtures/child.js';
import { sha256Of } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, makeExt4Image, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { makeTar } from '../fixtures/tars.js';
import { lacks } from '../fixtures/tools.js';

const execute = promisify(execFile);

const SKIPPABLE = Buffer.from('\x5a\x2a\x4d\x18\x04\0\0\0abcd', 'latin1');

async function image(): Promise<{ host: Host; source: string; sha256: string }> {
  const host = await Host.in();
  const source = join(host.root, 'image');
  await makeExt4Image(source, 4 * MiB);
  return { host, source, sha256: await sha256Of(source) };
}

describe('what is compressed', () => {
  test('by zstd may begin with frames to skip, and have them anywhere', async ({ skip }) => {
    const missing = lacks('zstd');
    if (missing !== undefined) skip(missing);
    const { host, source, sha256 } = await image();
    const whole = await readFile(source);
    const parts: Buffer[] = [SKIPPABLE, SKIPPABLE];
    for (const [i, half] of [whole.subarray(0, MiB), whole.subarray(MiB)].entries()) {
      await writeFile(`${source}.${i}`, half);
      await run('zstd', ['-q', `${source}.${i}`]);
      parts.push(await readFile(`${source}.${i}.zst`), SKIPPABLE);
    }
    await writeFile(`${source}.zst`, Buffer.concat(parts));
    expect(await host.registry.publishStack('new', `${source}.zst`)).toMatchObject({
      format: 'zstd',
      sha256,
    });
  });

  test('by gzip may have members that end where a read ends, and zeros behind the last', async () => {
    const { host, source, sha256 } = await image();
    const whole = await readFile(source);
    const first = gzipSync(whole.subarray(0, MiB), { level: 0 });
    // A comment in the second header moves its end to the chunk's.
    const filler = Buffer.concat([first, gzipSync(whole.subarray(MiB, 2 * MiB - 1000), { level: 0 })]);
    const rest = gzipSync(whole.subarray(2 * MiB - 1000));
    await writeFile(`${source}.gz`, Buffer.concat([filler, rest, Buffer.alloc(1000)]));
    expect((await host.registry.publishStack('new', `${source}.gz`)).sha256).toBe(sha256);
    const small = Buffer.alloc(MiB - 23).fill(0);
    const stored = gzipSync(small, { level: 0 });
    const exact = gzipSync(whole.subarray(0, MiB - (stored.length - small.length)), { level: 0 });
    const tail = gzipSync(whole.subarray(MiB - (stored.length - small.length)));
    await writeFile(`${source}.gz`, Buffer.concat([exact, tail]));
    expect((await host.registry.publishStack('exact', `${source}.gz`)).sha256).toBe(sha256);
  });

  test('by xz may have several streams with padding between them', async ({ skip }) => {
    const missing = lacks('xz');
    if (missing !== undefined) skip(missing);
    const { host, source, sha256 } = await image();
    const script =
      'head -c 1000000 "$1" | xz -0; head -c 8 /dev/zero; tail -c +1000001 "$1" | xz -0; head -c 16 /dev/zero';
    await execute('bash', ['-c', `{ ${script}; } > "$1.xz"`, 'bash', source]);
    expect((await host.registry.publishStack('new', `${source}.xz`)).sha256).toBe(sha256);
  });

  test('by xz, with something behind its end, is refused with what to do', async ({ skip }) => {
    const missing = lacks('xz');
    if (missing !== undefined) skip(missing);
    const { host, source } = await image();
    for (const added of ['junk', 'untrusted comment: signature']) {
      await execute('sh', ['-c', 'xz -0c "$1" > "$1.xz"; printf "$2" >> "$1.xz"', 'sh', source, added]);
      const { message } = await rejection(host.registry.publishStack('new', `${source}.xz`), 'IMAGE_INVALID');
      expect(message).toContain('something was added behind its end, cut it off');
    }
  });
});

describe('what is no ext4 image is named:', () => {
  const at = (offset: number, bytes: string, length = 70_000) => {
    const file = Buffer.alloc(length);
    file[0] = 1;
    file.write(bytes, offset, 'latin1');
    return file;
  };
  const mbr = at(510, '\x55\xaa');
  mbr.fill(0, 0, 1);
  mbr[446 + 4] = 0x83;
  mbr.writeUInt32LE(2048, 446 + 8);
  mbr.writeUInt32LE(100_000, 446 + 12);
  test.each([
    ['bzip2', at(0, 'BZh91AY'), 'bzip2 -d'],
    ['lz4', at(0, '\x04\x22\x4d\x18'), 'lz4 -d'],
    ['lz4 behind a frame to skip', Buffer.concat([SKIPPABLE, at(0, '\x04\x22\x4d\x18')]), 'lz4 -d'],
    ['a VMDK', at(0, 'KDMV'), 'qemu-img convert -f vmdk'],
    ['a VHDX', at(0, 'vhdxfile'), 'qemu-img convert -f vhdx'],
    ['a VHD of fixed size', at(70_000 - 512, 'conectix'), 'qemu-img convert -f vpc'],
    ['a disk with MBR', mbr, 'root partition'],
    ['a disk with GPT', at(512, 'EFI PART'), 'root partition'],
    ['an ISO', at(0x8001, 'CD001'), 'ISO 9660'],
    ['squashfs', at(0, 'hsqs'), 'unsquashfs'],
    ['EROFS', at(1024, '\xe2\xe1\xf5\xe0'), 'EROFS'],
    ['XFS', at(0, 'XFSB'), 'XFS'],
    ['btrfs', at(0x10040, '_BHRfS_M'), 'btrfs'],
    ['a web page', at(0, '<!DOCTYPE html>'), 'web page'],
    ['a zip', at(0, 'PK\x03\x04'), 'unzip'],
    ['nothing', Buffer.alloc(0), 'empty'],
  ] as const)('%s', async (_, bytes, words) => {
    const host = await Host.in();
    const source = join(host.root, 'source');
    await writeFile(source, bytes);
    const { message } = await rejection(host.registry.publishStack('new', source), 'IMAGE_INVALID');
    expect(message).toContain(words);
    expect(message).toContain(source);
  });

  test('a whole disk, compressed: the advice begins with that', async () => {
    const host = await Host.in();
    const source = join(host.root, 'source');
    await writeFile(source, gzipSync(mbr));
    const { message } = await rejection(host.registry.publishStack('new', source), 'IMAGE_INVALID');
    expect(message).toContain('decompress it with gzip -d, and publish its root partition');
  });

  test('layers of a container image', async () => {
    const host = await Host.in();
    const source = join(host.root, 'saved.tar');
    await writeFile(source, makeTar([{ path: 'oci-layout' }, { path: 'blobs/', type: '5' }]));
    const { message } = await rejection(host.registry.publishStack('new', source), 'IMAGE_INVALID');
    expect(message).toContain('docker export');
  });
});

test('a qcow2 that is marked as corrupt is refused, one that is dirty is not', async ({ skip }) => {
  const missing = lacks('qemu-img');
  if (missing !== undefined) skip(missing);
  const { host, source, sha256 } = await image();
  await run('qemu-img', ['convert', '-O', 'qcow2', '-o', 'lazy_refcounts=on', source, `${source}.qcow2`]);
  const marked = async (bit: number) => {
    const bytes = await readFile(`${source}.qcow2`);
    bytes[79] = bit;
    await writeFile(`${source}.marked`, bytes);
    return host.registry.publishStack('new', `${source}.marked`, { replace: true });
  };
  expect((await marked(1)).sha256).toBe(sha256);
  expect((await rejection(marked(2), 'IMAGE_INVALID')).message).toContain('qemu-img check');
});

test('what e2fsck finds is in the error', async () => {
  const { host, source } = await image();
  await run('debugfs', ['-w', '-R', 'sif <11> links_count 7', source]);
  const { message } = await rejection(host.registry.publishStack('new', source), 'E2FSCK_FAILED');
  expect(message).toContain('Inode 11 ref count is 7, should be 2');
  expect(message).not.toContain('Pass 1');
});

test('an image that is not clean as mke2fs made it is refused with advice that helps', async () => {
  const { host } = await image();
  const source = join(host.root, 'quota.ext4');
  await makeExt4Image(source, 16 * MiB, ['-O', 'quota']);
  const { message } = await rejection(host.registry.publishStack('new', source), 'E2FSCK_FAILED');
  expect(message).toContain('mend a copy of the image with e2fsck -fy');
  await execute('sh', ['-c', `e2fsck -fy ${source} || test $? -eq 1`]);
  await host.registry.publishStack('new', source);
});

test('advice for what is compressed is to decompress it, unless there is nothing of use in it', async () => {
  const { host } = await image();
  const source = join(host.root, 'source.gz');
  const told = async (bytes: Buffer) => {
    await writeFile(source, gzipSync(bytes));
    return (await rejection(host.registry.publishStack('new', source), 'IMAGE_INVALID')).message;
  };
  expect(await told(Buffer.alloc(0))).toMatch(/: it is empty; fetch the image itself$/);
  expect(await told(Buffer.from('<html>Not found'))).toMatch(/: it is a web page; fetch the image itself$/);
  expect(await told(Buffer.from('hsqs'.padEnd(9000, '\0')))).toContain(
    'decompress it with gzip -d, and unpack',
  );
});

test('standard input is a source, for the library and for the command', async () => {
  const { host, source, sha256 } = await image();
  const child = startChild(
    `const registry = new lib.RootfsRegistry(args.config);
     console.log((await registry.publishStack('new', '-')).sha256);
     await registry.close();`,
    { config: host.registry.config },
  );
  child.stdin?.end(await readFile(source));
  expect(await exitOf(child)).toMatchObject({ stdout: `${sha256}\n`, stderr: '' });
  const tar = makeTar([{ path: 'etc/hostname', contents: Buffer.from('microvm\n') }]);
  const { stdout, stderr } = await cli(host, ['--json', 'publish', 'tar', '-'], {
    input: tar.toString('latin1'),
  });
  expect(stderr).toBe('');
  expect(JSON.parse(stdout)).toMatchObject({ name: 'tar', format: 'tar' });
});

test('messages about standard input call it that', async () => {
  const { host } = await image();
  const told = async (input: string, ...args: string[]) => {
    const { stderr } = await cli(host, ['publish', 'new', '-', ...args], { input });
    return stderr;
  };
  expect(await told('<html>')).toContain('there is no ext4 file system in standard input: it is a web page');
  const tar = makeTar([{ path: 'etc/hostname', contents: Buffer.from('microvm\n') }]).toString('latin1');
  expect(await told(tar, '--size', '64K')).toContain('standard input does not fit into the 65536 bytes');
  const archive = makeTar([{ path: 'manifest.json' }, { path: 'repositories' }]).toString('latin1');
  expect(await told(archive)).toMatch(/standard input is a container image .* docker-archive:FILE/);
});

test('a worker reads standard input as well, and who comes later is told that it was read', async () => {
  const { host, source, sha256 } = await image();
  const child = startChild(
    `const { Worker } = require('node:worker_threads');
     const body = \`
       const { workerData: { library, config } } = require('node:worker_threads');
       const registry = new (require(library).RootfsRegistry)(config);
       (async () => {
         console.log((await registry.publishStack('new', '-')).sha256);
         await registry.publishStack('again', '-').catch((error) => console.log(error.code, error.message));
         await registry.close();
       })();\`;
     new Worker(body, { eval: true, workerData: { library: LIBRARY, config: args.config } });`,
    { config: host.registry.config },
  );
  child.stdin?.end(await readFile(source));
  const { stdout, stderr } = await exitOf(child);
  expect(stderr).toBe('');
  expect(stdout).toMatch(new RegExp(`^${sha256}\\nIMAGE_INVALID standard input was read to its end before`));
});

test('after an abort the program reads its standard input itself', async () => {
  const host = await Host.in();
  const child = startChild(
    `const registry = new lib.RootfsRegistry(args.config);
     const controller = new AbortController();
     const options = { signal: controller.signal, onProgress: () => controller.abort() };
     await registry.publishStack('new', '-', options).catch((error) => console.log(error.code));
     for await (const text of process.stdin.setEncoding('utf8')) console.log(text);
     await registry.close();`,
    { config: host.registry.config },
  );
  const exit = exitOf(child);
  child.stdin?.write('for the library');
  await printed(child, 'ABORT_ERR');
  child.stdin?.end('for the program');
  expect(await exit).toMatchObject({ stdout: 'ABORT_ERR\nfor the program\n', stderr: '' });
});

test('a folder as standard input is named for what it is', async () => {
  const host = await Host.in();
  const { stderr } = await cli(host, ['publish', 'new', '-'], { under: ['sh', '-c', 'exec "$@" < /', 'sh'] });
  expect(stderr).toContain('INVALID_ARGUMENT: standard input is a folder');
});

test('a tar without its two last blocks is whole, one that ends within a member is not', async () => {
  const host = await Host.in();
  const source = join(host.root, 'made.tar');
  const bytes = makeTar([{ path: 'a', contents: Buffer.from('a') }, { path: 'b' }]);
  await writeFile(source, bytes.subarray(0, -1024));
  await host.registry.publishStack('new', source);
  const refused = async () =>
    expect((await rejection(host.registry.publishStack('cut', source), 'IMAGE_INVALID')).message).toMatch(
      /cut off.*--multi-volume/,
    );
  await truncate(source, 700);
  await refused();
  // GNU tar always writes them.
  await run('tar', ['--create', '--format=gnu', '--file', source, '-C', '/etc', 'hostname']);
  await truncate(source, 1024);
  await refused();
});
