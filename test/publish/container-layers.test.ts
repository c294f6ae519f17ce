// The layers of container images: how they are compressed, how much they may hold, and what folders keep.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, inject, onTestFinished, test } from 'vitest';
import { RootfsRegistry } from '../../src/index.js';
import { fetchImage, LAYOUT } from '../../src/publish/fetch-image.js';
import { readFetched } from '../../src/publish/fetched-layout.js';
import { parsePlatform } from '../../src/publish/platform.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern, readInside, run } from '../fixtures/images.js';
import { mountRamfs } from '../fixtures/mounts.js';
import { type ImageSpec, makeLayout } from '../fixtures/oci-layout.js';
import { rejection } from '../fixtures/rejection.js';
import { type Member, makeTar } from '../fixtures/tars.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const missing = lacksRoot() ?? lacks('skopeo', 'umoci', 'mke2fs', 'debugfs', 'zstd');
const GUEST = process.arch === 'arm64' ? 'arm64' : 'amd64';

type Layers = ImageSpec['layers'];

async function layoutIn(host: Host, layers: Layers, compression?: ImageSpec['compression'], name = 'layout') {
  const path = join(host.root, name);
  await makeLayout(path, [{ layers, architecture: GUEST, compression }]);
  return `oci:${path}`;
}

async function statInside(host: Host, stack: string, path: string): Promise<string> {
  return (await run('debugfs', ['-R', `stat ${path}`, host.template(stack)])).stdout;
}

describe.skipIf(missing !== undefined)(
  `layers of a container image${missing === undefined ? '' : ` (${missing})`}`,
  () => {
    test('compressed with zstd give the image that they give compressed with gzip, or not at all', async () => {
      const host = await Host.in();
      // The second layer twice: what was decompressed for the first time serves again.
      const layers = [
        'mkdir -p a/b; echo one > a/b/file; head -c 300000 /dev/zero > zeros',
        'rm -rf x',
        'rm -rf x',
      ];
      const digests = new Set<string>();
      for (const compression of ['zstd', 'gzip', undefined] as const) {
        const name = `${compression}`;
        const source = await layoutIn(host, layers, compression, name);
        digests.add((await host.registry.publishStack(name, source)).sha256);
      }
      expect(digests.size).toBe(1);
      expect(await readInside(host.template('zstd'), '/a/b/file')).toBe('one\n');
    });

    test.each<[string, Partial<ImageSpec>]>([
      [
        'does not include layer sha256:',
        {
          mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
          urls: ['http://127.0.0.1:9/layer'],
        },
      ],
      ['is encrypted', { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted' }],
      ['has no SHA-256 of layer sha256:', { diffIds: [] }],
    ])('that cannot be read are told by why: %s', async (told, spec) => {
      const host = await Host.in();
      const layout = join(host.root, 'layout');
      const layers = ['echo a > a'];
      await makeLayout(layout, [{ layers, architecture: GUEST, compression: 'gzip', ...spec }]);
      const error = await rejection(host.registry.publishStack('app', `oci:${layout}`), 'ARTIFACT_INVALID');
      expect(error.message).toContain(told);
    });

    test('with attributes that ext4, or the file system of the catalog, cannot keep', async () => {
      const host = await Host.in(inject('scratch'));
      const withAttribute = (value: string) =>
        makeTar([{ path: 'a', contents: Buffer.from('a'), pax: { 'SCHILY.xattr.user.k': value } }]);
      const large = await layoutIn(host, [withAttribute('x'.repeat(6000))], undefined, 'large');
      const error = await rejection(host.registry.publishStack('app', large), 'IMAGE_INVALID');
      expect(error.message).toContain('one block');

      const templateDir = join(host.root, 'ramfs');
      await mkdir(templateDir);
      mountRamfs(templateDir);
      const registry = new RootfsRegistry({ ...host.registry.config, templateDir });
      onTestFinished(() => registry.close());
      const small = await layoutIn(host, [withAttribute('x')], undefined, 'small');
      const { message } = await rejection(registry.publishStack('app', small), 'ENOTSUP');
      expect(message).toContain('user.k');
    });

    test.each([
      ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
      ['application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'zstd'],
      ['application/vnd.oci.image.layer.v1.tar', 'gzip'],
      ['application/vnd.oci.image.layer.v1.tar+gzip', undefined],
    ] as const)('of the type %s are read as what they are: %s', async (mediaType, compression) => {
      const host = await Host.in();
      const layout = join(host.root, 'layout');
      await makeLayout(layout, [{ layers: ['echo a > a'], architecture: GUEST, compression, mediaType }]);
      await host.registry.publishStack('app', `oci:${layout}`);
      expect(await readInside(host.template('app'), '/a')).toBe('a\n');
    });

    test.each(['gzip', 'zstd'] as const)(
      'that are damaged within %s are refused by name',
      async (compression) => {
        const host = await Host.in();
        const source = await layoutIn(host, [Buffer.alloc(4 * KiB, 1)], compression);
        const { message } = await rejection(host.registry.publishStack('new', source), 'ARTIFACT_INVALID');
        expect(message).toContain(`${source} has a damaged layer`);
        expect(await exists(dirname(host.template('new')))).toBe(false);
      },
    );

    test('list folders of any time, which keep it, their owners and modes', async () => {
      const host = await Host.in();
      const year2040 = 2_208_988_800;
      const now = Math.floor(Date.now() / 1000);
      const layer = makeTar([
        { path: 'future/', type: '5', mtime: `${year2040}`, mode: 0o700, owner: [7, 8] },
        { path: 'future/file' },
        { path: 'today/', type: '5', mtime: `${now}`, mode: 0o750, owner: [9, 10] },
        { path: 'unlisted/file' },
      ]);
      await host.registry.publishStack('app', await layoutIn(host, [layer], 'gzip'));
      const future = await statInside(host, 'app', '/future');
      expect(future).toMatch(/Mode: +0700 .*\n.*\nUser: +7 +Group: +8 /);
      // debugfs tells seconds as 32 bits.
      expect(future).toContain(`mtime: 0x${year2040.toString(16)}`);
      const today = await statInside(host, 'app', '/today');
      expect(today).toMatch(/Mode: +0750 .*\n.*\nUser: +9 +Group: +10 /);
      expect(today).toContain(`mtime: 0x${now.toString(16)}`);
      const unlisted = await statInside(host, 'app', '/unlisted');
      expect(unlisted).toMatch(/Mode: +0755 .*\n.*\nUser: +0 +Group: +0 /);
      expect(unlisted).toContain('mtime: 0x12cea600');
    });

    const home: Member = { path: 'home/', type: '5', mode: 0o700, owner: [7, 8] };
    const hidden = (path: string): Member => ({ path });
    test.each<[string, readonly Member[][], readonly Member[]]>([
      [
        'a folder that is listed where a folder is made in it',
        [[home], [{ path: 'home/made/file' }]],
        [home, { path: 'home/made/file' }],
      ],
      [
        'a folder that is listed behind a link',
        [
          [
            { path: 'usr/', type: '5' },
            { path: 'lib', type: '2', target: '/usr' },
          ],
          [{ path: 'lib/a/', type: '5', mode: 0o700 }, { path: 'lib/a/b/file' }],
        ],
        [
          { path: 'usr/', type: '5' },
          { path: 'lib', type: '2', target: '/usr' },
          { path: 'usr/a/', type: '5', mode: 0o700 },
          { path: 'usr/a/b/file' },
        ],
      ],
      [
        'what a layer lists before it hides what is below',
        [
          [home, { path: 'home/old' }, { path: 'opaque/old/', type: '5', mode: 0o700 }],
          [home, { path: 'home/new' }, hidden('.wh.home')],
          [{ path: 'opaque/', type: '5', mode: 0o711 }, hidden('opaque/.wh..wh..opq')],
        ],
        [home, { path: 'home/new' }, { path: 'opaque/', type: '5', mode: 0o711 }],
      ],
      [
        'a folder that is listed no more once it was hidden, or was a link',
        [
          [home, { path: 'opaque/old/', type: '5', mode: 0o700 }, { path: 'a/', type: '5', mode: 0o700 }],
          [hidden('.wh.home'), hidden('opaque/.wh..wh..opq'), { path: 'a', type: '2', target: 'b' }],
          [{ path: 'home/new' }, { path: 'opaque/old/new' }, hidden('.wh.a')],
          [{ path: 'a/new' }],
        ],
        [{ path: 'home/new' }, { path: 'opaque/old/new' }, { path: 'a/new' }],
      ],
      [
        'times that not every program and file system can keep',
        [
          [
            { path: 'a', mtime: '9500000000' },
            { path: 'b', mtime: '1600000000.123456789' },
            { path: 'c', type: '1', target: 'a' },
            { path: 'd', mtime: '-62135596800' },
          ],
          [{ path: 'b' }],
        ],
        [
          { path: 'a', mtime: '9500000000' },
          { path: 'b' },
          { path: 'c', type: '1', target: 'a' },
          { path: 'd', mtime: '-2147483648' },
        ],
      ],
    ])('give the image that a tar gives: %s', async (_, layers, tar) => {
      const host = await Host.in();
      const source = await layoutIn(host, layers.map(makeTar));
      const path = join(host.root, 'tar');
      await writeFile(path, makeTar(tar));
      const { sha256 } = await host.registry.publishStack('app', source);
      expect(sha256).toBe((await host.registry.publishStack('tar', path)).sha256);
    });

    const bytes = (length: number) => makeTar([{ path: 'large', contents: Buffer.alloc(length) }]);
    const sparse = makeTar([
      {
        path: 'sparse',
        pax: { 'GNU.sparse.size': `${64 * MiB}`, 'GNU.sparse.numblocks': '0', 'GNU.sparse.map': '' },
      },
    ]);
    test.each<[string, Layers, object, string]>([
      ['bytes in one layer', [bytes(5 * MiB)], { maxBytes: 4 * MiB }, 'limits.maxBytes'],
      ['bytes in all layers', [bytes(3 * MiB), bytes(3 * MiB)], { maxBytes: 4 * MiB }, 'limits.maxBytes'],
      ['bytes in a sparse file', [sparse], { maxBytes: 4 * MiB }, 'limits.maxBytes'],
      ['files', ['touch a b c', 'touch d e f'], { maxFiles: 6 }, 'limits.maxFiles'],
      ['folders in each other', ['mkdir -p a/b/c'], { maxDepth: 2 }, 'limits.maxDepth'],
    ])('with more %s than allowed end umoci', async (_, layers, limits, option) => {
      const host = await Host.in();
      await withEndlessUmoci(host, async () => {
        for (const compression of [undefined, 'gzip', 'zstd'] as const) {
          const source = await layoutIn(host, layers, compression, `layout-${compression}`);
          const call = host.registry.publishStack('new', source, { limits });
          const { message } = await rejection(call, 'SOURCE_TOO_LARGE');
          expect(message).toContain(option);
          expect(message).toContain(`${source} `);
        }
      });
      expect(await host.stagedInCatalog()).toEqual([]);
    });

    test('without the padding behind the last file, as umoci insert leaves them, are published', async () => {
      const host = await Host.in();
      const whole = makeTar([{ path: 'file', contents: Buffer.from('not padded') }]);
      const source = await layoutIn(host, [whole.subarray(0, 512 + 10)], 'gzip');
      await host.registry.publishStack('app', source);
      expect(await readInside(host.template('app'), '/file')).toBe('not padded');
    });

    test.each([undefined, 'gzip', 'zstd'] as const)(
      'with more behind the end of the tar are published without it (%s)',
      async (compression) => {
        const host = await Host.in();
        const [first, second] = ['first', 'second'].map((path) => makeTar([{ path }]));
        const source = await layoutIn(host, [Buffer.concat([first, second] as Buffer[])], compression);
        await host.registry.publishStack('app', source);
        const { stdout } = await run('debugfs', ['-R', 'ls -p /', host.template('app')]);
        expect(stdout).toContain('/first/');
        expect(stdout).not.toContain('/second/');
      },
    );

    test('of git archive, which umoci cannot unpack, are refused with what to do', async () => {
      const host = await Host.in();
      const source = await layoutIn(host, [makeTar([{ path: 'pax', type: 'g' }, { path: 'file' }])]);
      const { message } = await rejection(host.registry.publishStack('app', source), 'ARTIFACT_INVALID');
      expect(message).toContain('has a layer with a pax header for all its files');
    });

    test('that are plain are fetched as they are, not compressed for umoci to decompress them', async () => {
      const host = await Host.in();
      const source = await layoutIn(host, [makeTar([{ path: 'file', contents: Buffer.alloc(MiB) }])]);
      const work = { workFolder: host.root, platform: parsePlatform(`linux/${GUEST}`), registries: {} };
      await fetchImage(new Task('fetching', undefined), { source, ...work });
      const { manifest } = await readFetched(join(host.root, LAYOUT), source);
      expect(manifest.layers[0].mediaType).toBe('application/vnd.oci.image.layer.v1.tar');
    });

    test('of tens of megabytes, in many pieces, are counted to their end', async () => {
      const host = await Host.in();
      const members = Array.from({ length: 3000 }, (_, i) => ({
        path: `${i}`,
        contents: pattern(1000 + 17 * i, i),
      }));
      const source = await layoutIn(host, [makeTar(members)], 'gzip');
      await rejection(
        host.registry.publishStack('new', source, { limits: { maxFiles: 2999 } }),
        'SOURCE_TOO_LARGE',
      );
      await host.registry.publishStack('app', source, { limits: { maxFiles: 3000 } });
    });

    test.each([2 ** 32 - 1, 2 ** 32])(
      'with the owner %d, whom umoci makes root, are refused',
      async (uid) => {
        const host = await Host.in();
        const layer = makeTar([{ path: 'etc/suid', mode: 0o4755, pax: { uid: `${uid}` } }]);
        const call = host.registry.publishStack('app', await layoutIn(host, [layer]));
        expect((await rejection(call, 'ARTIFACT_INVALID')).message).toContain(
          `etc/suid with the owner ${uid}`,
        );
      },
    );

    test.each<[string, Member]>([
      ['damaged security.capability', { path: 'it', pax: { 'SCHILY.xattr.security.capability': 'abc' } }],
      ['attribute user.a', { path: 'it', type: '2', target: 'x', pax: { 'SCHILY.xattr.user.a': 'x' } }],
      ['damaged access list', { path: 'it', pax: { 'SCHILY.xattr.system.posix_acl_access': 'abcdef' } }],
    ])('with a %s are refused by its name', async (fault, member) => {
      const host = await Host.in();
      const call = host.registry.publishStack('app', await layoutIn(host, [makeTar([member])]));
      const { message } = await rejection(call, 'ARTIFACT_INVALID');
      expect(message).toContain(fault);
      expect(message).toMatch(/ it[ :].*: create the tar again/);
      expect(message).not.toContain('umoci');
    });

    test('that hold the whiteouts of a container engine keep them: those of the image are applied', async () => {
      const host = await Host.in();
      const diff = 'var/lib/docker/overlay2/abc/diff/etc';
      const source = await layoutIn(host, [
        `mkdir -p ${diff} lib; mknod ${diff}/gone c 0 0; mknod lib/gone c 0 0`,
      ]);
      await host.registry.publishStack('app', source);
      for (const folder of [diff, 'lib']) {
        const { stdout } = await run('debugfs', ['-R', `stat /${folder}/gone`, host.template('app')]);
        expect(stdout).toMatch(/Type: character special[\s\S]*Device major\/minor number: 00:00/);
      }
    });
  },
);

describe.skipIf(missing !== undefined)('access lists in layers', () => {
  const acl = (user: number) => {
    const entries = [
      [1, 7],
      [2, 7, user],
      [4, 5],
      [16, 7],
      [32, 5],
    ].map(([tag = 0, permissions = 0, id = 0xffffffff]) => {
      const entry = Buffer.alloc(8);
      entry.writeUInt16LE(tag);
      entry.writeUInt16LE(permissions, 2);
      entry.writeUInt32LE(id, 4);
      return entry;
    });
    return Buffer.concat([Buffer.from([2, 0, 0, 0]), ...entries]);
  };
  const access = { 'SCHILY.xattr.system.posix_acl_access': acl(70) };
  const inherited = { ...access, 'SCHILY.xattr.system.posix_acl_default': acl(77) };
  const shared: Member = { path: 'shared/', type: '5', mode: 0o775, pax: inherited };
  const first: Member = { path: 'shared/first' };
  const own: Member = { path: 'own', mode: 0o775, pax: access };

  describeEachFilesystem(
    ({ path, name }) => {
      test('give the image that a tar gives', async () => {
        const host = await Host.in(path);
        // A list that a file inherits is not its own.
        const source = await layoutIn(host, [
          makeTar([{ ...shared, pax: access }]),
          makeTar([shared, first, own]),
        ]);
        const tar = join(host.root, 'tar');
        await writeFile(tar, makeTar([shared, first, own]));
        const { sha256 } = await host.registry.publishStack('app', source);
        expect((await host.registry.publishStack('tar', tar)).sha256).toBe(sha256);
      });

      test('beside trusted attributes are kept, or the file system is named', async () => {
        const host = await Host.in(path);
        const pax = { ...inherited, 'SCHILY.xattr.trusted.k': 'v' };
        const call = host.registry.publishStack(
          'app',
          await layoutIn(host, [makeTar([{ ...shared, pax }, first])]),
        );
        if (!name.includes('XFS')) return call;
        expect((await rejection(call, 'ENOTSUP')).message).toContain('put templateDir on');
      });
    },
    ({ name }) => ['XFS', 'btrfs', 'ext4', 'tmpfs', 'overlay over XFS'].includes(name),
  );
});

describe.skipIf(missing !== undefined)('a symbolic link of 1024 bytes and more in a layer', () => {
  describeEachFilesystem(
    ({ path, name }) => {
      test('is kept, or the file system is named', async () => {
        const host = await Host.in(path);
        const member: Member = { path: 'a', type: '2', pax: { linkpath: 't'.repeat(1500) } };
        const call = host.registry.publishStack('app', await layoutIn(host, [makeTar([member])]));
        if (!name.includes('XFS')) return call;
        expect((await rejection(call, 'ENOTSUP')).message).toContain('put templateDir on btrfs or ext4');
      });
    },
    ({ name }) => ['XFS', 'btrfs', 'ext4', 'tmpfs', 'overlay over XFS'].includes(name),
  );
});

/** With a umoci that unpacks for ever. */
async function withEndlessUmoci(host: Host, work: () => Promise<void>): Promise<void> {
  const bin = join(host.root, 'bin');
  await mkdir(bin);
  await writeFile(join(bin, 'umoci'), '#!/bin/sh\nexec sleep 600\n', { mode: 0o755 });
  const { PATH } = process.env;
  process.env.PATH = `${bin}:${PATH}`;
  try {
    await work();
  } finally {
    process.env.PATH = PATH;
  }
}
