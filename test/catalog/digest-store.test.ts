// Digests that outlive the process: believed for the very file and state that they are of, and for nothing else.
import { execFileSync } from 'node:child_process';
import {
  link,
  mkdir,
  readdir,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, inject, test } from 'vitest';
import { parse, recordNameOf, serialize } from '../../src/catalog/digest-record.js';
import { printed, runChild, startChild } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { newWorkspace } from '../fixtures/workspace.js';

const BYTES = pattern(MiB);
const OTHER_BYTES = pattern(MiB, 7);
const WRITABLE = { writable: true } as const;
const NOT_COMPUTED = 'f'.repeat(64);

const record = fc.record({
  sizeBytes: fc.maxSafeNat(),
  mtimeNs: fc.bigInt({ min: -(2n ** 90n), max: 2n ** 90n }),
  ctimeNs: fc.bigInt({ min: -(2n ** 90n), max: 2n ** 90n }),
  sha256: fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 64, maxLength: 64 }),
  path: fc.string({ maxLength: 100 }),
});
const name = fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 40, maxLength: 40 });

test('what is written is read back, under its own name alone', () => {
  fc.assert(
    fc.property(name, name, record, (own, other, written) => {
      expect(parse(own, serialize(own, written))).toEqual(written);
      if (other !== own) expect(parse(other, serialize(own, written))).toBeUndefined();
    }),
  );
});

test('one byte changed, or the end missing: nothing is believed', () => {
  fc.assert(
    fc.property(name, record, fc.nat(), fc.boolean(), (own, written, at, cut) => {
      const line = serialize(own, written);
      const index = at % line.length;
      const harmed = cut ? line.slice(0, index) : `${line.slice(0, index)}\u0001${line.slice(index + 1)}`;
      expect(parse(own, harmed)).toBeUndefined();
    }),
  );
});

test('a record fits into any symbolic link, however long the path', () => {
  const line = serialize('a'.repeat(40), {
    sizeBytes: Number.MAX_SAFE_INTEGER,
    mtimeNs: -(2n ** 90n),
    ctimeNs: -(2n ** 90n),
    sha256: 'a'.repeat(64),
    path: 'ü'.repeat(2000),
  });
  expect(line.length).toBeLessThan(1000);
});

const fine = { device: 1n, inode: 2n, sizeBytes: 3, mtimeNs: 4n, ctimeNs: 5n, links: 1, mount: 6n };
const whole = { ...fine, ctimeNs: 1_000_000_000n };

test.each([
  ['its UUID', fine, 'xfs:1', 'boot-1', 'xfs:1', 'boot-2', true],
  ['another UUID', fine, 'xfs:1', 'boot-1', 'xfs:2', 'boot-1', false],
  ['times in whole seconds, the same boot', whole, 'ext:1', 'boot-1', 'ext:1', 'boot-1', true],
  ['times in whole seconds, another boot', whole, 'ext:1', 'boot-1', 'ext:1', 'boot-2', false],
  ['no UUID, another boot', fine, '', 'boot-1', '', 'boot-2', false],
] as const)('known again by %s: %#', (_, identity, one, bootOfOne, other, bootOfOther, same) => {
  const first = recordNameOf({ path: '', identity, filesystem: one }, bootOfOne);
  const second = recordNameOf({ path: '', identity, filesystem: other }, bootOfOther);
  expect(first === second).toBe(same);
});

test('nothing is kept where neither times nor mounts tell files apart', () => {
  const identity = { ...whole, mount: 0n };
  expect(recordNameOf({ path: '', identity, filesystem: 'ext:1' }, 'boot')).toBeUndefined();
});

function folderOf(host: Host): string {
  return join(host.clonesDir, '.microvm-rootfs/digests');
}

async function records(host: Host) {
  const names = await readdir(folderOf(host));
  return Promise.all(
    names.map(async (name) => ({ name, record: parse(name, await readlink(join(folderOf(host), name))) })),
  );
}

/** Puts a digest that no hash gives into every record: whoever tells it has not read the template. */
async function forge(host: Host): Promise<void> {
  for (const { name, record } of await records(host)) {
    await rm(join(folderOf(host), name));
    if (record !== undefined)
      await symlink(serialize(name, { ...record, sha256: NOT_COMPUTED }), join(folderOf(host), name));
  }
}

describeEachFilesystem((filesystem) => {
  test('the next process does not read the template again', async () => {
    const host = await Host.in(filesystem.path);
    const template = await host.addTemplate('debian', BYTES);
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    expect((await records(host)).map(({ record }) => record?.sha256)).toEqual([sha256(BYTES)]);
    await forge(host);
    expect((await host.anotherRegistry().stack('debian'))?.sha256).toBe(NOT_COMPUTED);
    // And not for a file that is another, whatever its times say.
    const { atime, mtime } = await stat(template);
    await host.addTemplate('debian', pattern(MiB, 5));
    await utimes(template, atime, mtime);
    expect((await host.anotherRegistry().stack('debian'))?.sha256).toBe(sha256(pattern(MiB, 5)));
  });

  test.each(['garbage', '1 2 3 4 5', `1 1 1 1 ${NOT_COMPUTED} ${'0'.repeat(16)} `])(
    'a record that holds %j is replaced',
    async (line) => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
      for (const { name } of await records(host)) {
        await rm(join(folderOf(host), name));
        await symlink(line, join(folderOf(host), name));
      }
      const next = host.anotherRegistry();
      expect((await next.cloneForVm('vm-2', 'debian', WRITABLE)).sourceSha256).toBe(sha256(BYTES));
    },
  );

  test('a digest that was computed before the clones folder was there is kept as well', async () => {
    const host = await Host.in(filesystem.path);
    await host.addTemplate('debian', BYTES);
    await host.registry.stacks();
    await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
    await host.registry.close();
    expect((await records(host)).map(({ record }) => record?.sha256)).toEqual([sha256(BYTES)]);
  });

  test('the records of templates that were replaced or removed go', async () => {
    const host = await Host.in(filesystem.path);
    for (const stack of ['replaced', 'removed', 'kept']) {
      await host.addTemplate(stack, stack);
      await host.registry.cloneForVm(stack, stack, WRITABLE);
    }
    await host.addTemplate('replaced', 'by this');
    await host.registry.cloneForVm('vm-1', 'replaced', WRITABLE);
    await rm(host.template('removed'));
    await rename(host.templateDir, `${host.templateDir}.away`);
    await host.anotherRegistry().recover();
    expect((await records(host)).length).toBeGreaterThanOrEqual(3);
    await rename(`${host.templateDir}.away`, host.templateDir);
    await host.anotherRegistry().recover();
    const left = (await records(host)).map(({ record }) => record?.sha256).sort();
    expect(left).toEqual([sha256('by this'), sha256('kept')].sort());
  });

  test('what an earlier version wrote down is believed, and moves to the store', async () => {
    const host = await Host.in(filesystem.path);
    const template = await host.addTemplate('debian', BYTES);
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(template, { bigint: true });
    // As the kernel packs it: see makedev(3).
    const major = (dev >> 8n) & 0xfffn;
    const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
    const device = (major << 32n) | minor;
    const rows = JSON.stringify([
      [`${device}`, `${ino}`, Number(size), `${mtimeNs}`, `${ctimeNs}`, 1, NOT_COMPUTED],
    ]);
    await mkdir(join(host.clonesDir, '.microvm-rootfs'), { recursive: true });
    const file = join(host.clonesDir, '.microvm-rootfs/digests.json');
    await writeFile(file, `${JSON.stringify({ version: 1, check: sha256(rows) })}\n${rows}\n`);
    const told = (await host.registry.stack('debian'))?.sha256;
    const lasting = ['XFS', 'XFS without reflink', 'btrfs', 'ext4'].includes(filesystem.name);
    expect(told).toBe(lasting ? NOT_COMPUTED : sha256(BYTES));
    await rm(file);
    expect((await host.anotherRegistry().stack('debian'))?.sha256).toBe(told);
  });
});

describeEachFilesystem(
  (filesystem) => {
    /** Runs in a process of its own, on the host's folders; resolves to what it prints. */
    const elsewhere = async (host: Host, body: string) => {
      const { templateDir, clonesDir } = host;
      const whole = `const registry = new lib.RootfsRegistry(args); ${body}; await registry.close();`;
      return (await runChild(whole, { templateDir, clonesDir })).stdout.trim();
    };
    const cloneOf = (vm: string) =>
      `const { strategy, sourceSha256 } = await registry.cloneForVm('${vm}', 'debian');
       console.log(strategy, sourceSha256)`;
    const releaseOf = (vm: string) => `await registry.release('${vm}')`;
    const DIGEST = "console.log((await registry.stack('debian')).sha256)";

    /** Other bytes, with the time of the last change put back to the nanosecond. */
    const change = async (host: Host) => {
      const template = host.template('debian');
      const like = join(host.root, 'times');
      await writeFile(like, '');
      execFileSync('touch', ['-r', template, like]);
      await writeFile(template, OTHER_BYTES);
      execFileSync('touch', ['-r', like, template]);
    };

    test('hardlinked clones, made and released by processes in turn, cost no second reading', async () => {
      const host = await Host.in(filesystem.path);
      await host.addTemplate('debian', BYTES);
      expect(await elsewhere(host, cloneOf('vm-1'))).toBe(`hardlink ${sha256(BYTES)}`);
      await forge(host);
      // A process that lives through it all has links of its own.
      expect((await host.registry.cloneForVm('vm-2', 'debian')).sourceSha256).toBe(NOT_COMPUTED);
      expect(await elsewhere(host, cloneOf('vm-3'))).toBe(`hardlink ${NOT_COMPUTED}`);
      expect((await host.registry.cloneForVm('vm-4', 'debian')).sourceSha256).toBe(NOT_COMPUTED);
      await host.registry.release('vm-2');
      await host.registry.drain();
      expect(await elsewhere(host, DIGEST)).toBe(NOT_COMPUTED);
      for (const vm of ['vm-1', 'vm-4', 'vm-3']) await elsewhere(host, releaseOf(vm));
      expect(await elsewhere(host, DIGEST)).toBe(NOT_COMPUTED);
      expect((await host.registry.stack('debian'))?.sha256).toBe(NOT_COMPUTED);
    });

    test.each(['after a clone', 'before a clone', 'before a release', 'before another release'])(
      'a write %s whose time was put back is seen by all processes',
      async (when) => {
        const host = await Host.in(filesystem.path);
        await host.addTemplate('debian', BYTES);
        await elsewhere(host, cloneOf('vm-1'));
        const { sourceSha256 } = await host.registry.cloneForVm('vm-2', 'debian');
        expect(sourceSha256).toBe(sha256(BYTES));
        await change(host);
        if (when === 'before a clone') await host.registry.cloneForVm('vm-3', 'debian');
        if (when === 'before a release') await host.registry.release('vm-2');
        if (when === 'before another release') await elsewhere(host, releaseOf('vm-1'));
        expect(await elsewhere(host, DIGEST)).toBe(sha256(OTHER_BYTES));
        await host.registry.drain();
        expect(await elsewhere(host, DIGEST)).toBe(sha256(OTHER_BYTES));
        expect((await host.registry.stack('debian'))?.sha256).toBe(sha256(OTHER_BYTES));
      },
    );
  },
  ({ name }) => ['ext4', 'tmpfs', 'XFS without reflink'].includes(name),
);

test('two processes that write at once leave all records, whoever reads them meanwhile', async () => {
  const host = await Host.in();
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
    await printed(child, 'ready');
    return child;
  });
  const started = await Promise.all(children);
  const ends = started.map((child) => printed(child, 'done'));
  for (const child of started) child.stdin?.write('go');
  await Promise.all(ends);
  const all = await records(host);
  expect(all).toHaveLength(40);
  for (const { record } of all) expect(record).toBeDefined();
});

test('a new process with thousands of known templates opens none of them', async ({ skip }) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const host = await Host.in(xfs.path);
  const count = 6000;
  for (let i = 0; i < count; i++) await host.addTemplate(`stack-${i}`, `template ${i}`);
  await host.registry.cloneForVm('vm-1', 'stack-1', WRITABLE);
  expect(await host.registry.stacks()).toHaveLength(count);
  const { templateDir, clonesDir } = host;
  const { stdout } = await runChild(
    `const fs = require('node:fs');
     const registry = new lib.RootfsRegistry(args);
     const before = Number(/rchar: (\\d+)/.exec(fs.readFileSync('/proc/self/io', 'utf8'))[1]);
     const { length } = await registry.stacks();
     const read = Number(/rchar: (\\d+)/.exec(fs.readFileSync('/proc/self/io', 'utf8'))[1]) - before;
     console.log(JSON.stringify({ length, read }));`,
    { templateDir, clonesDir },
  );
  const { length, read } = JSON.parse(stdout);
  expect(length).toBe(count);
  expect(read).toBeLessThan(64 * 1024);
}, 120_000);

test.each(['in place', 'by a rename'])(
  'times in whole seconds: a change %s is seen',
  async (how) => {
    const workspace = newWorkspace();
    const path = workspace.disk('seconds', ['mke2fs', '-q', '-F', '-t', 'ext4', '-I', '128']);
    const host = await Host.in(path);
    const put = async (text: string) => {
      if (how === 'in place') await writeFile(await templateOf(host), text);
      else await host.addTemplate('debian', text);
    };
    await host.addTemplate('debian', 'version 0');
    for (let version = 1; version <= 3; version++) {
      await put(`version ${version}`);
      const { sha256: told } = (await host.registry.stack('debian')) ?? {};
      expect(told).toBe(sha256(`version ${version}`));
    }
  },
  30_000,
);

async function templateOf(host: Host): Promise<string> {
  return host.template('debian');
}

test('two versions of a disk image with the same UUID, inodes and times: each gives its own digest', async ({
  skip,
}) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const workspace = newWorkspace();
  const host = await Host.in(xfs.path);
  const mounted = join(host.root, 'mounted');
  await mkdir(mounted);
  const told: (string | undefined)[] = [];
  for (const version of ['one', 'two']) {
    const tree = join(host.root, version);
    await mkdir(join(tree, 'debian'), { recursive: true });
    await writeFile(join(tree, 'debian/rootfs.ext4'), `version ${version}`);
    execFileSync('find', [tree, '-exec', 'touch', '-d', '@1000000000', '{}', '+']);
    const image = join(host.root, `${version}.img`);
    const uuid = '11111111-1111-1111-1111-111111111111';
    execFileSync('/usr/sbin/mke2fs', ['-q', '-F', '-t', 'ext4', '-U', uuid, '-d', tree, image, '4M'], {
      env: { ...process.env, E2FSPROGS_FAKE_TIME: '1000000000' },
    });
    // The times of change are those of the tree: a build that is reproducible fixes them.
    execFileSync('/usr/sbin/debugfs', ['-w', '-R', 'sif debian/rootfs.ext4 ctime @1000000000', image]);
    execFileSync('/usr/sbin/debugfs', ['-w', '-R', 'sif debian/rootfs.ext4 ctime_extra 0', image]);
    execFileSync('mount', ['-o', 'loop,ro', image, mounted]);
    try {
      const registry = host.anotherRegistry({ templateDir: mounted });
      told.push((await registry.cloneForVm(version, 'debian', WRITABLE)).sourceSha256);
      await registry.close();
    } finally {
      execFileSync('umount', [mounted]);
    }
  }
  expect(told).toEqual([sha256('version one'), sha256('version two')]);
  workspace.dispose();
}, 30_000);

test('a second name and a time that was put back do not hide a change', async ({ skip }) => {
  const xfs = filesystemNamed('XFS');
  if (xfs.missing !== undefined) skip(xfs.missing);
  const host = await Host.in(xfs.path);
  const template = await host.addTemplate('debian', 'true bytes');
  const { atime, mtime } = await stat(template);
  await host.registry.stacks();
  await link(template, join(host.root, 'second-name'));
  await writeFile(template, 'evil bytes');
  await utimes(template, atime, mtime);
  const clone = await host.registry.cloneForVm('vm-1', 'debian', WRITABLE);
  expect(clone.sourceSha256).toBe(sha256('evil bytes'));
});
