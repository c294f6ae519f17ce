// Digests that outlive the process, and what must never be believed.
import { mkdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse, serialize } from '../src/digest-cache.js';
import { describeEachFilesystem } from './fixtures/each-filesystem.js';
import { sha256 } from './fixtures/files.js';
import { Host } from './fixtures/host.js';
import { MiB, pattern } from './fixtures/images.js';

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
});
