// Whatever comes in, from callers or from disk: it is refused with an error of ours or as nothing, or it is what it
// claims to be.
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse } from '../src/catalog/legacy-digests.js';
import { parseStackName } from '../src/catalog/stack-name.js';
import { CLONE_OPTION_KEYS, type CloneOptions, parseCloneOptions } from '../src/clone/clone-options.js';
import { parseSuperblock } from '../src/image/ext4.js';
import { parseRecord } from '../src/sealed/seal-record.js';
import { parseSizeStamp, parseStamp } from '../src/slot/stamps.js';
import { parseVmId, safeVmId } from '../src/slot/vm-id.js';
import { completeConfig, configFromEnv, type RootfsConfig } from '../src/system/config.js';
import { RootfsError } from '../src/system/errors.js';

// Also lone surrogates, NUL, and what sanitising knows.
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.string({ unit: fc.constantFrom(...'aZ9-_./\0\n \ud83e🦀é\uFEFF'), maxLength: 300 }),
);
const anything = fc.oneof(
  text,
  fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withTypedArray: true,
  }),
  fc.constantFrom(Symbol('x'), Number.NaN, -0, 2 ** 53, -1, 1.5, () => 'x', new AbortController().signal),
);

/** The result, or undefined if it was refused as it must be: with this code. */
function attempt<T>(code: string | readonly string[], call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    expect(error).toBeInstanceOf(RootfsError);
    expect([code].flat()).toContain((error as RootfsError).code);
    expect((error as RootfsError).message.length).toBeLessThan(600);
    return undefined;
  }
}

function always<T>(arbitrary: fc.Arbitrary<T>, property: (value: T) => void): void {
  fc.assert(fc.property(arbitrary, property), { numRuns: Number(process.env.FAST_CHECK_RUNS ?? 500) });
}

function alwaysSoon<T>(arbitrary: fc.Arbitrary<T>, property: (value: T) => Promise<void>): Promise<void> {
  return fc.assert(fc.asyncProperty(arbitrary, property), {
    numRuns: Number(process.env.FAST_CHECK_RUNS ?? 500),
  });
}

describe('ids and names', () => {
  test('a VM id is refused, or its folder is one that no other file system structure can collide with', () => {
    always(anything, (value) => {
      const id = attempt('INVALID_VM_ID', () => parseVmId(value));
      if (id === undefined) return;
      expect(id.raw).toBe(value);
      expect(id.safe).toMatch(/^[A-Za-z0-9_-]{1,255}$/);
      expect(id.safe).toHaveLength([...id.raw].length);
      expect(Buffer.from(id.raw, 'utf8').toString('utf8')).toBe(id.raw);
    });
  });

  test('sanitising twice is sanitising once, and an id of its letters alone is left as it is', () => {
    always(text, (id) => {
      expect(safeVmId(safeVmId(id))).toBe(safeVmId(id));
      if (/^[A-Za-z0-9_-]*$/.test(id)) expect(safeVmId(id)).toBe(id);
    });
  });

  test('a stack name is refused, or is one component of a path that is not hidden', () => {
    always(anything, (value) => {
      const name = attempt('INVALID_STACK_NAME', () => parseStackName(value));
      if (name === undefined) return;
      expect(name).toBe(value);
      expect(name).not.toMatch(/^\.|\/|\0/);
      expect(name).not.toBe('');
    });
  });
});

describe('options and configuration', () => {
  test('clone options are refused, or have the types that they are declared with', () => {
    const options = fc.oneof(
      anything,
      fc.record(Object.fromEntries(CLONE_OPTION_KEYS.map((key) => [key, anything])), { requiredKeys: [] }),
      fc.record({ owner: fc.record({ uid: anything, gid: fc.nat() }), mode: fc.nat(0o7777) }),
    );
    always(options, (value) => {
      const parsed = attempt('INVALID_ARGUMENT', () =>
        parseCloneOptions(() => 'cloning', value as CloneOptions),
      );
      if (parsed === undefined) return;
      const { writable, sizeBytes, owner, mode, durable, signal } = parsed;
      expect([undefined, true, false]).toContain(writable);
      expect(typeof durable).toBe('boolean');
      if (sizeBytes !== undefined) expect(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0).toBe(true);
      if (mode !== undefined) expect(Number.isInteger(mode) && mode >= 0 && mode <= 0o777).toBe(true);
      if (signal !== undefined) expect(signal).toBeInstanceOf(AbortSignal);
      for (const id of owner === undefined ? [] : [owner.uid, owner.gid]) {
        expect(Number.isInteger(id) && id >= 0 && id < 2 ** 32 - 1).toBe(true);
      }
    });
  });

  test('a configuration is refused, or is complete, frozen, and holds paths', () => {
    const keys = Object.keys(completeConfig());
    const configs = fc.oneof(
      anything,
      fc.record(Object.fromEntries(keys.map((key) => [key, anything])), { requiredKeys: [] }),
    );
    always(configs, (value) => {
      const config = attempt(['INVALID_ARGUMENT', 'FOLDERS_OVERLAP'], () =>
        completeConfig(value as Partial<RootfsConfig>),
      );
      if (config === undefined) return;
      expect(Object.isFrozen(config)).toBe(true);
      expect(Object.keys(config).sort()).toEqual([...keys].sort());
      for (const path of Object.values(config))
        if (typeof path === 'string') expect(path).toMatch(/^[^\0]+$/s);
    });
  });

  test('so is one from the environment', () => {
    const variables = [
      'MICROVM_ROOTFS_TEMPLATE_DIR',
      'MICROVM_ROOTFS_CLONES_DIR',
      'MICROVM_ROOTFS_SNAPSHOTS_DIR',
      'MICROVM_RESIZE2FS_BIN',
    ];
    const environment = fc.dictionary(fc.oneof(fc.constantFrom(...variables), fc.string()), text);
    always(environment, (env) => {
      attempt(['INVALID_ARGUMENT', 'FOLDERS_OVERLAP'], () => configFromEnv(env));
    });
  });
});

describe('what lies on disk', () => {
  const digest = fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 64, maxLength: 64 });

  test('a stamp is 64 hex digits or nothing', () => {
    const stamps = fc.oneof(
      text,
      fc.constant(null),
      fc.constant(undefined),
      digest,
      fc.tuple(digest, text).map((t) => t.join('')),
    );
    always(stamps, (stamp) => {
      const parsed = parseStamp(stamp);
      if (parsed === undefined) return;
      expect(parsed).toMatch(/^[0-9a-f]{64}$/);
      expect(stamp?.trim()).toBe(parsed);
    });
  });

  test('a size stamp is a safe size, or none, or nonsense', () => {
    const stamps = fc.oneof(
      text,
      fc.constant(null),
      fc.bigInt().map(String),
      fc.double().map(String),
      fc.maxSafeNat().map(String),
    );
    always(stamps, (stamp) => {
      const size = parseSizeStamp(stamp);
      if (Number.isNaN(size)) return;
      expect(Number.isSafeInteger(size) && (size ?? -1) >= 0).toBe(true);
      expect(BigInt(stamp?.trim() ?? '')).toBe(BigInt(size ?? -1));
    });
    always(fc.maxSafeNat(), (size) => {
      expect(parseSizeStamp(`${size}`)).toBe(size);
    });
  });

  test('a superblock is none, or has sizes that can be reckoned with', () => {
    // Bytes at random hardly ever have the magic number: it is put there, and so are fields that pass the first looks.
    const fields = fc.record({
      bytes: fc.uint8Array({ minLength: 512, maxLength: 1024, size: 'max' }),
      length: fc.constantFrom(0, 1023, 1024, 4096),
      magic: fc.boolean(),
      logBlockSize: fc.option(fc.nat(7)),
      is64bit: fc.option(fc.boolean()),
      descriptorSize: fc.option(fc.constantFrom(0, 1, 31, 32, 63, 64, 1024, 65535)),
    });
    always(fields, ({ bytes, length, magic, logBlockSize, is64bit, descriptorSize }) => {
      const block = Buffer.alloc(length);
      block.set(bytes.subarray(0, length));
      if (length >= 1024) {
        if (magic) block.writeUInt16LE(0xef53, 0x38);
        if (logBlockSize !== null) block.writeUInt32LE(logBlockSize, 0x18);
        if (is64bit !== null) block.writeUInt32LE(is64bit ? 0x80 : 0, 0x60);
        if (descriptorSize !== null) block.writeUInt16LE(descriptorSize, 0xfe);
      }
      const superblock = parseSuperblock(block);
      if (superblock === undefined) return;
      expect(magic || block.readUInt16LE(0x38) === 0xef53).toBe(true);
      const { sizeBytes, blockSize, groupSizeBytes, reservedSizeBytes } = superblock;
      for (const size of [sizeBytes, groupSizeBytes, reservedSizeBytes]) expect(size).toBeGreaterThan(0);
      expect(Number.isFinite(reservedSizeBytes)).toBe(true);
      expect(reservedSizeBytes).toBeGreaterThanOrEqual(sizeBytes);
      expect([1, 2, 4, 8, 16, 32, 64].map((kib) => kib * 1024)).toContain(blockSize);
    });
  });

  test('digests.json: with a checksum that is right, anything but rows of ours is nothing', async () => {
    const row = ['1', '2', 3, '4', '5', 1, 'a'.repeat(64)];
    const harmed = fc
      .tuple(fc.nat(row.length - 1), fc.jsonValue())
      .map(([at, value]) => JSON.stringify([row.with(at, value as string)]));
    const rows = fc.oneof(fc.json(), harmed);
    await alwaysSoon(rows, async (json) => {
      const check = createHash('sha256').update(json).digest('hex');
      const entries = await parse(`${JSON.stringify({ version: 1, check })}\n${json}\n`);
      for (const { identity, sha256 } of entries?.values() ?? []) {
        expect(sha256).toMatch(/^[0-9a-f]{64}$/);
        expect(Number.isSafeInteger(identity.sizeBytes) && Number.isSafeInteger(identity.links)).toBe(true);
      }
    });
  });

  test('record.json: anything but a whole record of ours is nothing', () => {
    const state = { inode: '12', sizeBytes: 4096, mtimeNs: '1' };
    const whole = {
      version: 1,
      templatePath: '/t/rootfs.ext4',
      template: state,
      sha256: 'a'.repeat(64),
      sizeBytes: 4096,
      image: { ...state, ctimeNs: '2' },
      extents: 1,
    };
    expect(parseRecord(JSON.stringify(whole))).toEqual(whole);
    const harmed = fc
      .tuple(fc.constantFrom(...Object.keys(whole)), fc.option(fc.jsonValue(), { nil: undefined }))
      .map(([key, value]) => JSON.stringify({ ...whole, [key]: value }));
    always(fc.oneof(fc.json(), text, harmed), (json) => {
      const record = parseRecord(json);
      if (record === undefined) return;
      expect(record).toMatchObject({
        version: 1,
        templatePath: expect.any(String),
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      });
      expect(Number.isSafeInteger(record.sizeBytes)).toBe(true);
      for (const { inode, sizeBytes, mtimeNs } of [record.template, record.image]) {
        expect([typeof inode, typeof sizeBytes, typeof mtimeNs]).toEqual(['string', 'number', 'string']);
      }
    });
  });
});
