// Publishing a container image: what its layers say is in the template, and what its config says is told by the stack.
import { chmod, mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cliJson } from '../cli/run-cli.js';
import { runChild } from '../fixtures/child.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { faultsOf, MiB, makeExt4Image, readInside, run } from '../fixtures/images.js';
import { makeLayout } from '../fixtures/oci-layout.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const missing = lacksRoot() ?? lacks('skopeo', 'umoci', 'mke2fs', 'debugfs');
const GUEST = process.arch === 'arm64' ? 'arm64' : 'amd64';
const OTHER = GUEST === 'arm64' ? 'amd64' : 'arm64';

const BASE = `
  mkdir -p etc opaque/old dev bin deep/er
  echo base > etc/hostname; echo gone > etc/gone; echo hidden > opaque/old/file
  echo shared > etc/first
  mknod dev/null c 1 3; chmod 666 dev/null
  cp /bin/true bin/ping; chmod 4755 bin/ping; chown 7:8 etc/hostname
  cp /bin/true bin/capable; setcap cap_net_raw+ep bin/capable 2>/dev/null || setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 bin/capable`;
const SECOND = `
  mkdir -p etc opaque
  touch etc/.wh.gone opaque/.wh..wh..opq
  echo new > opaque/new; echo second > etc/hostname`;

async function layoutIn(
  host: Host,
  ...args: Parameters<typeof makeLayout> extends [string, ...infer R] ? R : never
) {
  const path = join(host.root, 'layout');
  await makeLayout(path, ...args);
  return path;
}

describe.skipIf(missing !== undefined)(
  `a container image${missing === undefined ? '' : ` (${missing})`}`,
  () => {
    test('is not unpacked by root of a user namespace, who makes no devices', async () => {
      const host = await Host.in();
      const layout = await layoutIn(host, [{ layers: [BASE], architecture: GUEST }]);
      const { stdout } = await runChild(
        `await new lib.RootfsRegistry(args.config).publishStack('app', args.source)
           .catch(({ code, message }) => console.log(code, message));`,
        { config: host.registry.config, source: `oci:${layout}` },
        { under: ['unshare', '--map-root-user'] },
      );
      expect(stdout).toMatch(/^EPERM unpacking .* needs root of the host, not of a user namespace/);
      expect(await exists(dirname(host.template('app')))).toBe(false);
    });

    test('is started as before by a stack of its clone, of a clone of that, and of its template', async () => {
      const host = await Host.in();
      const { registry } = host;
      const config = { Cmd: ['/bin/server'] };
      const layout = await layoutIn(host, [{ layers: [BASE], config, architecture: GUEST }]);
      const { image } = await registry.publishStack('app', `oci:${layout}`);
      await registry.cloneForVm('vm', 'app', { writable: true });
      // The digest's stack is the first that had it, so a slot of another one records its own.
      expect(await registry.publishStack('copy', host.template('app'))).toMatchObject({
        format: 'raw',
        image,
      });
      await registry.cloneForVm('copied', 'copy', { writable: true });
      await registry.forkSlot('vm', 'fork');
      for (const vm of ['vm', 'copied', 'fork'])
        expect(await registry.commitSlot(vm, `of-${vm}`)).toMatchObject({ image });
      expect(await registry.commitSlot('vm', 'app', { replace: true })).toMatchObject({ image });
      for (const { name } of await registry.stacks())
        expect(await registry.stack(name)).toMatchObject({ image });
      await host.addExt4Template('plain', 16 * MiB);
      await registry.cloneForVm('other', 'plain', { writable: true });
      expect(await registry.commitSlot('other', 'of-other')).not.toHaveProperty('image');
    });

    test('is published with its layers applied, and its config is told', async () => {
      const host = await Host.in();
      const config = {
        Entrypoint: ['/sbin/init'],
        Cmd: ['--quiet'],
        Env: ['PATH=/bin', 'A=b c'],
        User: '7:8',
        WorkingDir: '/deep/er',
        Labels: { team: 'vm' },
      };
      const layout = await layoutIn(host, [{ layers: [BASE, SECOND], config, architecture: GUEST }]);
      const published = await host.registry.publishStack('app', `oci:${layout}:latest`);
      const image = {
        entrypoint: ['/sbin/init'],
        cmd: ['--quiet'],
        env: ['PATH=/bin', 'A=b c'],
        user: '7:8',
        workingDir: '/deep/er',
        labels: { team: 'vm' },
        platform: `linux/${GUEST}`,
      };
      expect(published).toMatchObject({ format: 'container', image, replaced: false });
      expect((await host.anotherRegistry().stack('app'))?.image).toEqual(image);
      expect(await cliJson(host, ['stacks'])).toMatchObject({ stacks: [{ name: 'app', image }] });
      const template = host.template('app');
      expect(await faultsOf(template)).toBe('');
      expect(await readInside(template, '/etc/hostname')).toBe('second\n');
      expect(await readInside(template, '/opaque/new')).toBe('new\n');
      for (const path of ['/etc/gone', '/opaque/old']) {
        expect((await run('debugfs', ['-R', `stat ${path}`, template])).stderr).toContain('not found');
      }
      expect((await run('debugfs', ['-R', 'stat /bin/ping', template])).stdout).toMatch(/Mode: +04755/);
      expect((await run('debugfs', ['-R', 'stat /dev/null', template])).stdout).toMatch(
        /character special.*\n(.*\n)*.*01:03/,
      );
      expect((await run('debugfs', ['-R', 'ea_list /bin/capable', template])).stdout).toContain(
        'security.capability',
      );
      expect(await host.stagedInCatalog()).toEqual([]);
    });

    test('gives the same digest again, and in another layout', async () => {
      const host = await Host.in();
      const layout = await layoutIn(host, [{ layers: [BASE, SECOND], architecture: GUEST }]);
      const { sha256 } = await host.registry.publishStack('one', `oci:${layout}`);
      await new Promise((resolve) => setTimeout(resolve, 1100)); // times in the image are whole seconds
      await run('skopeo', ['copy', '-q', `oci:${layout}:latest`, `oci:${layout}-2:other`]);
      expect((await host.registry.publishStack('two', `oci:${layout}-2:other`)).sha256).toBe(sha256);
    });

    test('is the same in a catalog that gives an access list to what is made in it', async () => {
      const host = await Host.in();
      const layout = await layoutIn(host, [{ layers: [BASE, SECOND], architecture: GUEST }]);
      const { sha256 } = await host.registry.publishStack('one', `oci:${layout}`);
      const entries = [
        '01000700ffffffff',
        '02000700d2040000',
        '04000500ffffffff',
        '10000700ffffffff',
        '20000500ffffffff',
      ];
      const acl = ['-n', 'system.posix_acl_default', '-v', `0x02000000${entries.join('')}`];
      const other = await Host.in();
      await mkdir(other.templateDir, { recursive: true });
      await run('setfattr', [...acl, other.templateDir]);
      expect((await other.registry.publishStack('one', `oci:${layout}`)).sha256).toBe(sha256);
    });

    test('is found in a folder with a colon in its name, and by a tag with one', async () => {
      const host = await Host.in();
      const path = join(host.root, 'a:b', 'c');
      const images = ['latest', 'v1', 'example.org/app/it:v2'].map((tag) => ({
        layers: [`echo ${tag} > tag`],
        architecture: GUEST,
        tag,
      }));
      await makeLayout(path, images);
      for (const tag of ['latest', 'v1', 'example.org/app/it:v2']) {
        await host.registry.publishStack('app', `oci:${path}:${tag}`, { replace: true });
        expect(await readInside(host.template('app'), '/tag')).toBe(`${tag}\n`);
      }
      const call = host.registry.publishStack('new', `oci:${join(host.root, 'a:missing')}:v1`);
      expect((await rejection(call, 'ENOENT')).message).toContain('a:missing/index.json');
    });

    test('keeps hardlinks within a layer, and a file that a later layer changes is its own', async () => {
      const host = await Host.in();
      const layers = ['echo x > a; ln a b; ln a c', 'echo y > c'];
      const layout = await layoutIn(host, [{ layers, architecture: GUEST }]);
      await host.registry.publishStack('links', `oci:${layout}`);
      const stat = async (path: string) =>
        (await run('debugfs', ['-R', `stat ${path}`, host.template('links')])).stdout;
      const inode = async (path: string) => /Inode: (\d+)/.exec(await stat(path))?.[1];
      expect(await inode('/a')).toBe(await inode('/b'));
      expect(await inode('/c')).not.toBe(await inode('/a'));
      expect(await readInside(host.template('links'), '/b')).toBe('x\n');
      expect(await readInside(host.template('links'), '/c')).toBe('y\n');
    });

    test('of twenty layers is published whole', async () => {
      const host = await Host.in();
      const layers = Array.from({ length: 20 }, (_, i) => `echo ${i} > file-${i}; echo ${i} > last`);
      const layout = await layoutIn(host, [{ layers, architecture: GUEST }]);
      await host.registry.publishStack('many', `oci:${layout}`);
      expect(await readInside(host.template('many'), '/last')).toBe('19\n');
      expect(await readInside(host.template('many'), '/file-17')).toBe('17\n');
    });

    test('for several platforms: that of this host, or the one that is asked for', async () => {
      const host = await Host.in();
      const images = [OTHER, GUEST].map((architecture) => ({
        layers: [`echo ${architecture} > arch`],
        architecture,
      }));
      const layout = await layoutIn(host, images, { asIndex: true });
      await host.registry.publishStack('own', `oci:${layout}`);
      await host.registry.publishStack('other', `oci:${layout}`, { platform: `linux/${OTHER}` });
      expect(await readInside(host.template('own'), '/arch')).toBe(`${GUEST}\n`);
      expect(await readInside(host.template('other'), '/arch')).toBe(`${OTHER}\n`);
      const error = await rejection(
        host.registry.publishStack('third', `oci:${layout}`, { platform: 'linux/s390x' }),
        'ARTIFACT_INVALID',
      );
      expect(error.message).toContain('platform');
      expect(await exists(dirname(host.template('third')))).toBe(false);
    });

    test('that does not tell its platform is taken for any', async () => {
      const host = await Host.in();
      const layout = await layoutIn(host, [{ layers: ['touch a'], os: '', architecture: '' }]);
      await host.registry.publishStack('app', `oci:${layout}`);
      expect((await host.registry.stack('app'))?.image).not.toHaveProperty('platform');
    });

    test('replaced by another: the config is that of the image that is there, and goes with the stack', async () => {
      const host = await Host.in();
      const first = await layoutIn(host, [
        { layers: ['echo 1 > a'], config: { Cmd: ['one'] }, architecture: GUEST, tag: 'a' },
        { layers: ['echo 1 > a'], config: { Cmd: ['same files'] }, architecture: GUEST, tag: 'b' },
        { layers: ['echo 2 > a'], config: { Cmd: ['two'] }, architecture: GUEST, tag: 'c' },
      ]);
      for (const [tag, cmd] of [
        ['a', 'one'],
        ['b', 'same files'],
        ['c', 'two'],
      ] as const) {
        await host.registry.publishStack('app', `oci:${first}:${tag}`, { replace: true });
        expect((await host.registry.stack('app'))?.image?.cmd).toEqual([cmd]);
        expect(await readdir(dirname(host.template('app')))).toHaveLength(2);
      }
      const raw = join(host.root, 'raw');
      await makeExt4Image(raw, 8 * MiB);
      await host.registry.publishStack('app', raw, { replace: true });
      expect(await host.registry.stack('app')).not.toHaveProperty('image');
      expect(await readdir(dirname(host.template('app')))).toEqual(['rootfs.ext4']);
      await host.registry.publishStack('app', `oci:${first}:a`, { replace: true });
      await host.registry.removeStack('app');
      expect(await exists(dirname(host.template('app')))).toBe(false);
    });

    test('that cannot be had is refused with a code that says why, and the catalog stays as it was', async () => {
      const host = await Host.in();
      const layout = await layoutIn(host, [{ layers: ['touch a'], architecture: OTHER }]);
      const refused = async (source: string, code: string, options = {}) => {
        const { message } = await rejection(host.registry.publishStack('new', source, options), code);
        expect(await exists(dirname(host.template('new')))).toBe(false);
        expect(await host.stagedInCatalog()).toEqual([]);
        return message;
      };
      expect(await refused(`oci:${layout}`, 'ARTIFACT_INVALID')).toContain(`linux/${OTHER}`);
      await refused(`oci:${layout}:missing`, 'REGISTRY_NOT_FOUND', { platform: `linux/${OTHER}` });
      await refused('oci:/nonexistent', 'ENOENT');
      await refused('oci:', 'REFERENCE_INVALID');
      await refused('docker://UPPER CASE', 'REFERENCE_INVALID');
      await refused('docker://127.0.0.1:1/debian:12', 'REGISTRY_FAILED');
      await refused(`oci:${layout}`, 'INVALID_ARGUMENT', { platform: '../x' });
      await refused(`oci:${layout}`, 'INVALID_ARGUMENT', { format: 'tar' });
      await refused(join(layout, 'index.json'), 'INVALID_ARGUMENT', { platform: 'linux/arm64' });
      const [manifest = ''] = await readdir(join(layout, 'blobs/sha256'));
      await writeFile(join(layout, 'blobs/sha256', manifest), 'damaged');
      await refused(`oci:${layout}`, 'ARTIFACT_INVALID', { platform: `linux/${OTHER}` });
    });

    test.each(['skopeo', 'umoci'])('without %s names the program and its package', async (program) => {
      const host = await Host.in();
      const layout = await layoutIn(host, [{ layers: ['touch a'], architecture: GUEST }]);
      const bin = join(host.root, 'bin');
      await mkdir(bin);
      for (const tool of ['skopeo', 'umoci'].filter((tool) => tool !== program))
        await writeFile(join(bin, tool), `#!/bin/sh\nexec /usr/bin/${tool} "$@"\n`, { mode: 0o755 });
      const { stdout } = await runChild(
        `process.env.PATH = args.bin;
       const registry = new lib.RootfsRegistry(args.config);
       await registry.publishStack('new', args.source).catch(({ code, message }) => console.log(code, message));
       await registry.close();`,
        { config: host.registry.config, source: `oci:${layout}`, bin },
      );
      expect(stdout).toMatch(new RegExp(`^PROGRAM_NOT_FOUND .*${program}.*package ${program}`));
    });

    test('unpacked by another than root is refused, since its owners would be lost', async () => {
      const host = await Host.in();
      const layout = await layoutIn(host, [{ layers: ['touch a'], architecture: GUEST }]);
      await chmod(host.root, 0o777);
      const { stdout } = await runChild(
        `const registry = new lib.RootfsRegistry({ templateDir: args.root + '/own', clonesDir: args.root + '/clones' });
       await registry.publishStack('new', args.source).catch(({ code, message }) => console.log(code, message));
       await registry.close();`,
        { root: host.root, source: `oci:${layout}` },
        { uid: 65534 },
      );
      expect(stdout).toMatch(/^EPERM .*root/);
    });
  },
);
