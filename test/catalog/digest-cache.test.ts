// Digests that outlive the process, and what must never be believed.
import {
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { expect, inject, test } from 'vitest';
import { parse, serialize } from '../../src/catalog/digest-cache.js';
import { printed, runChild, startChild } from '../fixtures/child.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists, sha256, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { GiB, MiB, pattern } from '../fixtures/images.js';

const BYTES = pattern(MiB);
const WRITABLE = { writable: true } as const;

const entries = fc.array(
  fc.record({
    identity: fc.record({
      device: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      inode: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      sizeBytes: fc.maxSafeNat(),
      mtimeNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      ctimeNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      links: fc.nat(),
    }),
    sha256: fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 64, maxLength: 64 }),
  }),
  { maxLength: 20 },
);

test('what is written is read back', () => {
  fc.assert(
    fc.property(entries, (list) => {
      expect(parse(serialize(list))).toEqual(list);
    }),
  );
});

test('one byte changed, or the end missing: nothing is believed', () => {
  fc.assert(
    fc.property(entries, fc.nat(), fc.boolean(), (list, at, cut) => {
      const text = serialize(list);
      const index = at % text.length;
      const harmed = cut ? text.slice(0, index) : `${text.slice(0, index)}\u0001${text.slice(index + 1)}`;
      // The last byte is the end of the last line, which says nothing.
      if (index < text.length - 1) expect(parse(harmed)).toBeUndefined();
    }),
  );
});

test('garbage is nothing', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      expect(parse(text)).toBeUndefined();
    }),
  );
});

describeEachFilesystem((filesystem) => {
  function fileOf(host: Host): string {
    return join(host.clonesDir, '.microvm-rootfs/digests.json');
  }

  test('the next process does not read the template again', async () => {
    const host = await Host.in(filesystem.path);
    const template = await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect(parse(await readFile(fileOf(host), 'utf8'))?.[0]?.sha256).toBe(sha256(BYTES));
    // A digest that no hash would give shows that none was computed.
    const known = parse(await readFile(fileOf(host), 'utf8')) ?? [];
    await writeFile(fileOf(host), serialize(known.map((entry) => ({ ...entry, sha256: 'f'.repeat(64) }))));
    expect((await host.anotherRegistry().stack('debian'))?.sha256).toBe('f'.repeat(64));
    // And not for a file that is another, whatever its times say.
    const { atime, mtime } = await stat(template);
    await host.addTemplate('debian', pattern(MiB, 5));
    await utimes(template, atime, mtime);
    expect((await host.anotherRegistry().stack('debian'))?.sha256).toBe(sha256(pattern(MiB, 5)));
  });

  test.each([
    ['empty', ''],
    ['garbage', '\u0000\u0001{{{'],
    ['of another version', '{"version":99,"check":""}\n[]\n'],
    ['huge', ' '.repeat(5 * MiB)],
  ])('a file that is %s is rebuilt', async (_, contents) => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    await mkdir(dirname(fileOf(host)), { recursive: true });
    await writeFile(fileOf(host), contents);
    expect((await host.registry.cloneForVm('vm-1', 'debian', WRITABLE)).sourceSha256).toBe(sha256(BYTES));
    expect(parse(await readFile(fileOf(host), 'utf8'))?.[0]?.sha256).toBe(sha256(BYTES));
  });

  test('a file that is cut at any place is rebuilt', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    const { size } = await stat(fileOf(host));
    for (const [i, left] of [size - 2, size >> 1, 70, 1, 0].entries()) {
      await truncate(fileOf(host), left);
      const clone = await host.anotherRegistry().cloneForVm(`cut-${i}`, 'debian', WRITABLE);
      expect(clone.sourceSha256).toBe(sha256(BYTES));
      expect(parse(await readFile(fileOf(host), 'utf8'))).toHaveLength(1);
    }
  });

  test('a digest that was computed before the clones folder was opened is kept as well', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    await host.registry.stacks();
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await host.registry.close();
    const kept = (await exists(fileOf(host))) ? parse(await readFile(fileOf(host), 'utf8')) : [];
    expect(kept?.map((entry) => entry.sha256)).toEqual([sha256(BYTES)]);
  });
});

/** A folder of clones whose file of digests is known to be there. */
async function hostWithFile(): Promise<{ host: Host; file: string }> {
  const host = await Host.in();
  await host.addTemplate('debian', BYTES);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  return { host, file: join(host.clonesDir, '.microvm-rootfs/digests.json') };
}

test.each([
  ['a folder', async (file: string) => void (await mkdir(file))],
  ['a hundred times what memory is wanted for', async (file: string) => writeSparse(file, 3 * GiB)],
  ['longer than any string', async (file: string) => writeSparse(file, 700 * MiB)],
])('in place of the file: %s: the clone is right all the same', async (_, put) => {
  const { host, file } = await hostWithFile();
  await rm(file);
  await put(file);
  const clone = await host.anotherRegistry().cloneForVm('vm-2', 'debian', WRITABLE);
  expect(clone.sourceSha256).toBe(sha256(BYTES));
});

test('the next process reads no template, as the kernel counts', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', pattern(64 * MiB));
  const { templateDir, clonesDir } = host;
  const body = `
    const fs = require('node:fs');
    const read = () => Number(/rchar: (\\d+)/.exec(fs.readFileSync('/proc/self/io', 'utf8'))[1]);
    const registry = new lib.RootfsRegistry(args);
    const before = read();
    const { sourceSha256 } = await registry.cloneForVm('vm-' + process.pid, 'debian', { writable: false });
    console.log(JSON.stringify({ sourceSha256, bytes: read() - before }));
    await registry.close();`;
  const runs = [];
  for (let i = 0; i < 2; i++) runs.push(await runChild(body, { templateDir, clonesDir }));
  const [first, second] = runs.map(({ stdout }) => JSON.parse(stdout));
  expect(first.bytes).toBeGreaterThanOrEqual(64 * MiB);
  expect(second.bytes).toBeLessThan(MiB);
  expect([first.sourceSha256, second.sourceSha256]).toEqual(Array(2).fill(sha256(pattern(64 * MiB))));
});

test('a symbolic link in its place is not followed, and is replaced', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', BYTES);
  await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  const file = join(host.clonesDir, '.microvm-rootfs/digests.json');
  const elsewhere = join(host.root, 'elsewhere');
  await writeFile(elsewhere, 'precious');
  await rm(file);
  await symlink(elsewhere, file);
  const registry = host.anotherRegistry();
  await registry.cloneForVm('vm-2', 'debian', WRITABLE);
  await host.addTemplate('other', 'other');
  await registry.cloneForVm('vm-3', 'other', WRITABLE);
  expect(await readFile(elsewhere, 'utf8')).toBe('precious');
  expect((await lstat(file)).isFile()).toBe(true);
});

test('two processes that write at once leave a file that is whole, whoever reads it meanwhile', async () => {
  const { host, file } = await hostWithFile();
  const children = ['a', 'b'].map(async (name) => {
    const other = await Host.in(inject('scratch'), { clonesDir: host.clonesDir });
    for (let i = 0; i < 20; i++) await other.addTemplate(`${name}${i}`, `template ${name}${i}`);
    const child = startChild(
      `const registry = new lib.RootfsRegistry(args.config);
       console.log('ready');
       await new Promise((resolve) => process.stdin.once('data', resolve));
       for (let i = 0; i < 20; i++) await registry.cloneForVm(args.name + '-' + i, args.name + i, { writable: true });
       await registry.close();
       console.log('done');
       process.exit();`,
      { name, config: { templateDir: other.templateDir, clonesDir: host.clonesDir } },
    );
    let stderr = '';
    child.stderr?.on('data', (text) => {
      stderr += text;
    });
    await printed(child, 'ready');
    return { child, complaints: () => stderr };
  });
  const started = await Promise.all(children);
  const ends = started.map(({ child }) => printed(child, 'done'));
  for (const { child } of started) child.stdin?.write('go');
  let working = true;
  const done = Promise.all(ends).finally(() => {
    working = false;
  });
  while (working) {
    expect(parse(await readFile(file, 'utf8'))).toBeDefined();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await done;
  for (const { complaints } of started) expect(complaints()).toBe('');
  const entries = parse(await readFile(file, 'utf8')) ?? [];
  // One of two that write at once may lose its news, the last to write has all of its own.
  expect(entries.length).toBeGreaterThan(20);
  expect(await readdir(join(host.clonesDir, '.microvm-rootfs/staging'))).toHaveLength(1);
});

test('no more than 4,096 entries: the oldest go, and the largest such file is still believed', async () => {
  const { host, file } = await hostWithFile();
  const old = Array.from({ length: 4096 }, (_, i) => ({
    identity: {
      device: 2n ** 64n - 1n,
      inode: 2n ** 64n - 1n - BigInt(i),
      sizeBytes: Number.MAX_SAFE_INTEGER,
      mtimeNs: -(2n ** 63n),
      ctimeNs: -(2n ** 63n),
      links: 2 ** 32 - 1,
    },
    sha256: sha256(`${i}`),
  }));
  await writeFile(file, serialize(old));
  await host.addTemplate('other', 'other');
  await host.anotherRegistry().cloneForVm('vm-2', 'other', WRITABLE);
  const entries = parse(await readFile(file, 'utf8')) ?? [];
  expect(entries).toHaveLength(4096);
  expect(entries.at(-1)?.sha256).toBe(sha256('other'));
  expect(entries[0]).toEqual(old[1]);
});
