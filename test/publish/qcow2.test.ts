// Converting a qcow2 that somebody else made: the same disk, or a refusal before qemu-img sees the file.
import { execFile } from 'node:child_process';
import { open, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeEach, expect, inject, test } from 'vitest';
import { convertQcow2 } from '../../src/publish/qcow2.js';
import { Task } from '../../src/system/task.js';
import { allocatedBytes, exists, sha256Of, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern, run } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks } from '../fixtures/tools.js';

const SIZE = 3 * MiB;
const NO_LIMIT = Number.MAX_SAFE_INTEGER;

beforeEach(({ skip }) => {
  const missing = lacks('qemu-img');
  if (missing !== undefined) skip(missing);
});

interface Disk {
  readonly raw: string;
  readonly qcow2: string;
  readonly out: string;
}

/** A raw disk with holes, and a qcow2 of it. */
function disk(...options: readonly string[]): Promise<Disk> {
  const content = { 0: pattern(4 * KiB), [2 * MiB]: pattern(64 * KiB, 2) };
  return diskOf((raw) => writeSparse(raw, SIZE, content), options);
}

/** The same without holes. */
function fullDisk(...options: readonly string[]): Promise<Disk> {
  return diskOf((raw) => writeFile(raw, pattern(SIZE)), options);
}

/** What gets smaller: qemu-img compresses no cluster that does not. */
function words(length: number): Buffer {
  return Buffer.from(pattern(length).map((byte) => 97 + (byte & 15)));
}

async function diskOf(write: (raw: string) => Promise<void>, options: readonly string[]): Promise<Disk> {
  const { root } = await Host.in(inject('scratch'));
  const raw = join(root, 'raw');
  const qcow2 = join(root, 'qcow2');
  await write(raw);
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, qcow2]);
  return { raw, qcow2, out: join(root, 'out') };
}

function convert({ qcow2, out }: Disk, maxBytes = NO_LIMIT): Promise<void> {
  return convertQcow2(new Task('converting', undefined), qcow2, 'the source', out, maxBytes);
}

/** Writes to the header, and expects a refusal that ran no program. */
async function refused(made: Disk, at: number, bytes: Buffer, code = 'IMAGE_INVALID'): Promise<string> {
  const before = await readFile(made.qcow2);
  const file = await open(made.qcow2, 'r+');
  await file.write(bytes, 0, bytes.length, at);
  await file.close();
  const { message } = await rejection(convert(made), code);
  expect(message).toContain('the source');
  expect(await exists(made.out)).toBe(false);
  await writeFile(made.qcow2, before);
  return message;
}

function number(value: bigint | number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

test.each([
  ['of version 2', ['-o', 'compat=0.10']],
  ['of version 3', ['-o', 'compat=1.1']],
  ['with small clusters', ['-o', 'cluster_size=512']],
  ['with compressed clusters', ['-c']],
  ['with sub-clusters', ['-o', 'extended_l2=on,cluster_size=128k']],
])('a qcow2 %s gives the disk that it was made of, and no more blocks', async (_, options) => {
  const made = await disk(...options);
  await convert(made);
  expect(await sha256Of(made.out)).toBe(await sha256Of(made.raw));
  expect(await allocatedBytes(made.out)).toBeLessThan(MiB);
});

test('a link leads to an image whose name is not UTF-8', async () => {
  const made = await disk();
  const bytes = Buffer.concat([Buffer.from(made.qcow2), Buffer.from([0xe9])]);
  await rename(made.qcow2, bytes);
  await symlink(bytes, made.qcow2);
  await convert(made);
  expect(await sha256Of(made.out)).toBe(await sha256Of(made.raw));
});

test('a file that this process has open, by the name of its descriptor, is read as that file', async () => {
  const made = await disk();
  const file = await open(made.qcow2, 'r');
  await convert({ ...made, qcow2: `/proc/self/fd/${file.fd}` });
  await file.close();
  expect(await sha256Of(made.out)).toBe(await sha256Of(made.raw));
});

test('the limit is of the disk that it holds, which may be far larger than the file', async () => {
  const made = await disk();
  await convert(made, SIZE);
  await rejection(convert(made, SIZE - 1), 'SOURCE_TOO_LARGE');
  await rejection(convert(made, 0), 'SOURCE_TOO_LARGE');
  await rm(made.out);
  for (const size of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n])
    expect(await refused(made, 24, number(size), 'SOURCE_TOO_LARGE')).toContain('limits.maxBytes');
});

test('whatever leads to another file is refused by the header alone, in both versions', async () => {
  for (const compat of ['0.10', '1.1']) {
    const made = await disk('-o', `compat=${compat}`);
    expect(await refused(made, 8, number(1))).toContain('backing file');
    expect(await refused(made, 8, number(2n ** 63n))).toContain('backing file');
    expect(await refused(made, 32, Buffer.from([0, 0, 0, 1]))).toContain('encrypted');
    expect(await refused(made, 32, Buffer.from([0x80, 0, 0, 0]))).toContain('encrypted');
    expect(await refused(made, 4, Buffer.from([0, 0, 0, 1]))).toContain('version 1');
    expect(await refused(made, 4, Buffer.from([0, 0, 0, 0]))).toContain('version 1');
  }
  const made = await disk();
  expect(await refused(made, 72, number(4))).toContain('another file');
  expect(await refused(made, 72, number(6))).toContain('corrupt');
});

test('a real image with a data file, or on another image, is refused', async () => {
  const { raw, qcow2, out } = await disk();
  const external = `${qcow2}.external`;
  const options = `data_file=${raw},data_file_raw=on`;
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, external, `${SIZE}`]);
  expect((await rejection(convert({ raw, qcow2: external, out }), 'IMAGE_INVALID')).message).toContain(
    'another file',
  );
  const above = `${qcow2}.above`;
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', '/etc/hostname', '-F', 'raw', above, '1M']);
  expect((await rejection(convert({ raw, qcow2: above, out }), 'IMAGE_INVALID')).message).toContain(
    'backing file',
  );
  expect(await exists(out)).toBe(false);
});

test('a file that ends anywhere within its header is refused', async () => {
  const made = await disk();
  for (const length of [0, 1, 71, 72, 80, 103]) {
    const cut = `${made.qcow2}.${length}`;
    await writeFile(cut, (await readFile(made.qcow2)).subarray(0, length));
    await rejection(convert({ ...made, qcow2: cut }), 'IMAGE_INVALID');
    expect(await exists(made.out)).toBe(false);
  }
});

test('what only qemu-img sees, such as a feature that nobody knows, is in the error', async () => {
  const made = await disk();
  const file = await open(made.qcow2, 'r+');
  await file.write(number(2n ** 40n), 0, 8, 72);
  await file.close();
  const { message } = await rejection(convert(made), 'IMAGE_INVALID');
  expect(message).toMatch(/the source.*qemu-img|qemu-img.*the source/s);
});

test.each([
  ['of version 2', ['-o', 'compat=0.10']],
  ['of version 3', []],
  ['with small clusters', ['-o', 'cluster_size=512']],
  ['with large ones', ['-o', 'cluster_size=2M']],
  ['with sub-clusters', ['-o', 'extended_l2=on,cluster_size=128k']],
  ['with compressed clusters', ['-c']],
])('a qcow2 %s that was cut off anywhere is refused, not filled up with zeros', async (_, options) => {
  const made = await fullDisk(...options);
  const { raw, qcow2, out } = made;
  const whole = await readFile(qcow2);
  for (let part = 1; part < 16; part++) {
    const length = Math.floor((whole.length * part) / 16);
    await writeFile(qcow2, whole.subarray(0, length));
    const failure = await convert(made).catch((error: unknown) => error);
    // What lies behind the end of the disk in its last cluster is not needed.
    if (failure === undefined && options.includes('cluster_size=2M')) {
      expect(await sha256Of(out)).toBe(await sha256Of(raw));
      await rm(out);
      continue;
    }
    expect(failure, `${part} of 16 parts`).toMatchObject({ code: 'IMAGE_INVALID' });
  }
  await writeFile(qcow2, whole);
  await convert(made);
  expect(await sha256Of(out)).toBe(await sha256Of(raw));
});

test.each([[], ['-o', 'extended_l2=on,cluster_size=128k']])(
  'a qcow2 that lacks the last bytes of its last data is refused %j',
  async (...options) => {
    const made = await fullDisk(...options);
    await truncate(made.qcow2, (await stat(made.qcow2)).size - 512);
    await rejection(convert(made), 'IMAGE_INVALID');
  },
);

test.each([
  ['', 0],
  ['whose disk ends within a cluster', 1_000_448],
])(
  'a qcow2 with compressed clusters %s that lacks the end of its last one is refused, or whole',
  async (_, odd) => {
    const made = await diskOf((raw) => writeFile(raw, words(odd || 192 * KiB)), ['-c']);
    const { raw, qcow2, out } = made;
    const whole = await readFile(qcow2);
    const cuts = [...Array.from({ length: 31 }, (_, i) => 16 * (i + 1)), 512, 600, 4096];
    for (const cut of cuts) {
      await writeFile(qcow2, whole.subarray(0, whole.length - cut));
      const failure = await convert(made).catch((error: unknown) => error);
      if (failure === undefined) {
        expect(cut).toBeLessThan(512);
        expect(await sha256Of(out), `${cut} bytes`).toBe(await sha256Of(raw));
        await rm(out);
      } else expect(failure, `${cut} bytes`).toMatchObject({ code: 'IMAGE_INVALID' });
    }
  },
);

test.each([
  ['of metadata', 'preallocation=metadata'],
  ['with falloc', 'preallocation=falloc'],
  ['of large clusters', 'preallocation=metadata,cluster_size=2M'],
  ['of no clusters', 'cluster_size=2M'],
  ['with sub-clusters', 'extended_l2=on,cluster_size=128k'],
])('a disk of an odd size, preallocated %s, with a few blocks written, is whole', async (_, options) => {
  const { root } = await Host.in(inject('scratch'));
  const qcow2 = join(root, 'qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, qcow2, '10485248']);
  for (const command of [
    'write 0 4k',
    'write 5M 4k',
    'write -z 1M 64k',
    'discard 5M 64k',
    'write 10481152 4k',
  ])
    await run('qemu-io', ['-f', 'qcow2', '-c', command, qcow2]);
  await convert({ raw: qcow2, qcow2, out: join(root, 'out') });
});

test('what is said to be a qcow2, and is none, is told as such', async () => {
  const made = await fullDisk();
  const { message } = await rejection(convert({ ...made, qcow2: made.raw }), 'IMAGE_INVALID');
  expect(message).toContain('is not a qcow2 image: leave the format out');
});

test('paths that look like options, protocols or patterns are paths', async () => {
  const made = await disk();
  for (const name of ['-h', 'nbd:localhost', 'json:{}', 'a b%d', "it's"]) {
    const path = join(made.qcow2, '..', name);
    await promisify(execFile)('cp', ['--', made.qcow2, path]);
    await convert({ ...made, qcow2: path, out: `${path}.out` });
    expect(await sha256Of(`${path}.out`), name).toBe(await sha256Of(made.raw));
  }
});

test('an abort ends the conversion', async () => {
  const { qcow2, out } = await disk();
  const task = new Task('converting', AbortSignal.abort());
  await rejection(convertQcow2(task, qcow2, 'the source', out, NO_LIMIT), 'ABORT_ERR');
});
