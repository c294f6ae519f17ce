// The core of what the library does, for whatever runtime runs it: each check by its name, on a folder that holds
// templates/base/rootfs.ext4, a clean ext4 image. Needs nothing but Node's own modules, and those only as far as Bun
// and Deno have them.
const assert = require('node:assert');
const { existsSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } = require('node:fs');
const { dirname, join } = require('node:path');

const SHA256_OF_ABC = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';

/**
 * @param lib the package
 * @param {string} folder
 * @param {boolean} reflinks whether the file system there has FICLONE
 * @returns {Promise<number>} how many checks passed; the first that does not ends it
 */
exports.core = async function core(lib, folder, reflinks) {
  const templateDir = join(folder, 'templates');
  const clonesDir = join(folder, 'clones');
  const template = join(templateDir, 'base', 'rootfs.ext4');
  const sizeBytes = statSync(template).size;
  const registry = new lib.RootfsRegistry({ templateDir, clonesDir });
  const writable = { writable: true };
  const clone = (id, options = writable) => registry.cloneForVm(id, 'base', options);
  const slots = () => readdirSync(clonesDir).filter((name) => !name.startsWith('.'));
  const fails = (promise, code) =>
    assert.rejects(promise, (error) => {
      assert.equal(error.code, code);
      return error instanceof lib.RootfsError;
    });
  let digest = '';

  return runChecks({
    'SHA-256 of a file': async () => {
      const path = join(folder, 'abc');
      writeFileSync(path, 'abc');
      assert.equal(await lib.hashFile(path), SHA256_OF_ABC);
    },
    'a hash tells its progress': async () => {
      const seen = [];
      digest = await lib.hashFile(template, { onProgress: ({ bytesDone }) => seen.push(bytesDone) });
      assert.equal(seen.at(-1), sizeBytes);
    },
    stacks: async () => {
      assert.deepEqual(await registry.stacks(), [
        { name: 'base', templatePath: template, sizeBytes, sha256: digest },
      ]);
      assert.equal(await registry.stack('other'), undefined);
    },
    'a clone has the bytes and the stamp of its template': async () => {
      const made = await clone('vm-1');
      assert.equal(made.strategy, reflinks ? 'reflink' : 'copy');
      assert.equal(made.sourceSha256, digest);
      assert.equal(await lib.hashFile(made.path), digest);
      assert.equal(readFileSync(`${made.path}.sha256`, 'utf8'), digest);
      assert.equal(made.reused, false);
    },
    'the same clone again is reused': async () => assert.equal((await clone('vm-1')).reused, true),
    'a clone of its own can be written': async () => {
      const { path } = await clone('written');
      const bytes = readFileSync(path);
      bytes.fill(1);
      writeFileSync(path, bytes);
      assert.equal(await lib.hashFile(template), digest);
    },
    'a guest that only reads may share the inode': async () => {
      const made = await clone('reader', { writable: false });
      assert.equal(made.strategy, reflinks ? 'reflink' : 'hardlink');
      assert.equal(made.sharesTemplateInode, !reflinks);
      assert.equal(statSync(made.path).ino === statSync(template).ino, !reflinks);
    },
    'one id asked for 16 times at once is made once': async () => {
      const made = await Promise.all(Array.from({ length: 16 }, () => clone('contended')));
      assert.equal(made.filter(({ reused }) => !reused).length, 1);
    },
    'many in one call': async () => {
      const ids = Array.from({ length: 16 }, (_, i) => `many-${i}`);
      const settled = await registry.cloneMany(
        ids.map((vmId) => ({ vmId, stack: 'base', options: writable })),
      );
      assert.deepEqual([...new Set(settled.map(({ status }) => status))], ['fulfilled']);
    },
    'at once, on the calling thread': async () => {
      const sync = () => registry.cloneForVmSync('sync', 'base', writable);
      if (reflinks) assert.equal(sync().strategy, 'reflink');
      else assert.throws(sync, { code: 'NOT_WARM' });
    },
    'grown, and its ext4 fills it': async () => {
      const grown = await registry.cloneForVmWithSize('grown', 'base', 2 * sizeBytes, writable);
      assert.equal(statSync(grown.path).size, 2 * sizeBytes);
      assert.equal(ext4Bytes(grown.path), 2 * sizeBytes);
      assert.equal(readFileSync(`${grown.path}.size`, 'utf8'), String(2 * sizeBytes));
    },
    'another size is refused': async () => {
      await fails(registry.cloneForVmWithSize('grown', 'base', 4 * sizeBytes), 'SIZE_STAMP_MISMATCH');
      await fails(registry.cloneForVmWithSize('shrunk', 'base', sizeBytes - 1), 'SHRINK_REFUSED');
    },
    'ids are made safe, and told apart': async () => {
      assert.equal((await clone('a/b')).vmId, 'a_b');
      await fails(clone('a_b'), 'VM_ID_COLLISION');
      await fails(registry.release('a_b'), 'VM_ID_COLLISION');
      assert.equal(lib.safeVmId('ü/😀'), '___');
    },
    'what cannot be is refused by its code': async () => {
      await fails(clone(''), 'INVALID_VM_ID');
      await fails(registry.cloneForVm('x', '../base'), 'INVALID_STACK_NAME');
      await fails(registry.cloneForVm('x', 'other'), 'STACK_NOT_FOUND');
      await fails(lib.hashFile(join(folder, 'missing')), 'ENOENT');
    },
    'a signal aborts': async () => {
      await fails(clone('aborted', { writable: true, signal: AbortSignal.abort() }), 'ABORT_ERR');
      assert.equal(existsSync(join(clonesDir, 'aborted')), false);
    },
    'a slot of a replaced template is not handed out': async () => {
      await clone('stale');
      const bytes = readFileSync(template);
      const next = join(folder, 'next');
      writeFileSync(next, Buffer.concat([bytes, Buffer.alloc(4096)]));
      renameSync(next, template);
      await fails(clone('stale'), 'STAMP_MISMATCH');
      assert.equal((await clone('fresh')).sizeBytes, sizeBytes + 4096);
    },
    'released slots are gone, twice is fine': async () => {
      for (const id of slots()) if (id !== 'a_b') assert.equal(await registry.release(id), true);
      assert.equal(await registry.release('a/b'), true);
      assert.equal(await registry.release('vm-1'), false);
      assert.deepEqual(slots(), []);
    },
    'recovering finds nothing to mend': async () => {
      const { tornSlots, settledSlots } = await registry.recover();
      assert.deepEqual([...tornSlots, ...settledSlots], []);
    },
    'closed is closed': async () => {
      await registry.close();
      await fails(clone('late'), 'CLOSED');
      assert.deepEqual(readdirSync(dirname(template)), ['rootfs.ext4']);
    },
  });
};

async function runChecks(checks) {
  let passed = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      passed++;
    } catch (error) {
      throw new Error(`check "${name}": ${error.message}`, { cause: error });
    }
  }
  return passed;
}

/** Of an ext4 superblock, which lies at 1024: blocks_count_lo at 4, log_block_size at 24. */
function ext4Bytes(image) {
  const superblock = readFileSync(image).subarray(1024, 2048);
  return superblock.readUInt32LE(4) * (1024 << superblock.readUInt32LE(24));
}

/** What each program ends with: the line "N checks passed", or the error and exit status 1. */
exports.run = async function run(lib, [reflinkFolder, plainFolder]) {
  try {
    let passed = await exports.core(lib, reflinkFolder, true);
    passed += await exports.core(lib, plainFolder, false);
    console.log(`${passed} checks passed`);
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  }
};
