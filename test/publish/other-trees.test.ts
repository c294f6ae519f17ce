// Folders and tars that hold disks, layers or a root file system in a form of their own are not published as a root.
import { execFileSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, inject, test } from 'vitest';
import { withTarTree } from '../../src/publish/tar/tar-tree.js';
import { Host } from '../fixtures/host.js';
import { makeLayout } from '../fixtures/oci-layout.js';
import { rejection } from '../fixtures/rejection.js';
import { type Member, makeTar } from '../fixtures/tars.js';
import { lacks } from '../fixtures/tools.js';

const HASH = '0123456789abcdef'.repeat(4);

/** Paths that end with a slash are folders, and with a star programs. */
async function namesIn(...paths: string[]): Promise<string[]> {
  const tar = join((await Host.in(inject('scratch'))).root, 'a.tar');
  const members = paths.map((path): Member => {
    if (path.endsWith('/')) return { path, type: '5' };
    return path.endsWith('*') ? { path: path.slice(0, -1), mode: 0o755 } : { path };
  });
  await writeFile(tar, makeTar(members));
  const reading = {
    source: 'a.tar',
    limits: { maxFiles: 10_000, maxDepth: 10 },
    otherTimeNs: 0n,
    checkAborted() {},
  };
  return withTarTree(tar, reading, async ({ children }) => [...children.keys()]);
}

const LAYERS =
  /^a.tar is a container image with layers, .*skopeo copy docker-archive:a.tar oci:DIR, .*docker export/;

test.each<[what: string, words: RegExp, paths: string[]]>([
  [
    'a disk, as clouds publish them',
    /holds the image of a disk.*: unpack it and publish disk.raw/,
    ['disk.raw'],
  ],
  ['an OVA', /publish d.vmdk itself/, ['d.ovf', 'd.vmdk', 'd.mf']],
  [
    'a box of Vagrant',
    /publish box.img/,
    ['metadata.json', 'Vagrantfile', 'include/_Vagrantfile', 'box.img*'],
  ],
  ['an image of LXD', /of LXD.*publish its folder rootfs/, ['metadata.yaml', 'templates/', 'rootfs/etc/x']],
  ['a bundle', /bundle of an OCI runtime/, ['config.json', 'rootfs/bin/']],
  ['an image as Docker saves it', LAYERS, ['manifest.json', 'repositories', `${HASH}/layer.tar`]],
  ['an image as crane and kaniko save it', LAYERS, [`sha256:${HASH}`, `${HASH}.tar.gz`, 'manifest.json']],
  ['an image as jib saves it', LAYERS, ['config.json', 'manifest.json', `${HASH}.tar.gz`]],
  ['an image as nix saves it', LAYERS, [`${HASH}/layer.tar`, `${HASH}.json`, 'manifest.json']],
  ['an image as podman saves it', LAYERS, [`${HASH}.tar`, `${HASH}.json`, 'manifest.json']],
  ['an image as rules_oci saves it', LAYERS, ['blobs/sha256/', 'manifest.json']],
  ['an OCI layout', /skopeo copy oci-archive:a.tar oci:DIR/, ['oci-layout', 'index.json', 'blobs/']],
])('a tar of %s is named, with a remedy', async (_, words, paths) => {
  expect((await rejection(namesIn(...paths), 'IMAGE_INVALID')).message).toMatch(words);
});

test.each<[what: string, paths: string[]]>([
  ['a program alone', ['app*']],
  ['a program beside a disk', ['app*', 'disk.img']],
  ['a program beside what images have', ['app*', 'manifest.json', 'data.tar']],
  ['a program that runs a bundle', ['agent*', 'config.json', 'rootfs/']],
  ['a folder beside a disk', ['dev/', 'disk.img']],
  ['a folder beside a box', ['disk.img', 'metadata.json', 'start/']],
  ['files', ['manifest.json', 'config.json', 'data']],
  ['a root that holds an image', ['etc/', 'oci-layout', 'blobs/', 'manifest.json', 'repositories']],
  ['a root that holds disks', ['init*', 'disk.raw']],
  ['a root in a folder', ['rootfs/etc/']],
  ['many files', Array.from({ length: 2000 }, (_, i) => `${i}.img`)],
])('a tar of %s may be a root', async (_, paths) => {
  const names = paths.map((path) => path.replace(/[/*].*/, ''));
  expect(await namesIn(...paths)).toEqual(names);
});

describe('a folder', () => {
  test('that is an OCI layout, or an image that skopeo wrote, is named with what to do', async ({ skip }) => {
    const missing = lacks('skopeo');
    if (missing !== undefined) skip(missing);
    const host = await Host.in();
    const layout = join(host.root, 'layout');
    await makeLayout(layout, [{ layers: ['mkdir etc'] }]);
    const refused = async (source: string) =>
      (await rejection(host.registry.publishStack('new', source), 'IMAGE_INVALID')).message;
    expect(await refused(layout)).toContain(`publish oci:${layout}`);
    const copy = (to: string) => execFileSync('skopeo', ['copy', '--quiet', `oci:${layout}`, to]);
    copy(`dir:${layout}.dir`);
    expect(await refused(`${layout}.dir`)).toContain(`skopeo copy dir:${layout}.dir oci:DIR`);
    copy(`docker-archive:${layout}.tar:a/b:1`);
    expect(await refused(`${layout}.tar`)).toContain(`skopeo copy docker-archive:${layout}.tar oci:DIR`);
    await mkdir(`${layout}.unpacked`);
    execFileSync('tar', ['-C', `${layout}.unpacked`, '-xf', `${layout}.tar`]);
    expect(await refused(`${layout}.unpacked`)).toMatch(/container image with layers.*docker export/);
    copy(`oci-archive:${layout}.oci.tar`);
    expect(await refused(`${layout}.oci.tar`)).toContain('skopeo copy oci-archive:');
  });

  test('with one program in it is published, and one with a disk alone is not', async () => {
    const host = await Host.in();
    const tree = join(host.root, 'tree');
    await mkdir(tree);
    await writeFile(join(tree, 'disk.raw'), 'x');
    const { message } = await rejection(host.registry.publishStack('new', tree), 'IMAGE_INVALID');
    expect(message).toMatch(/root file system: publish disk.raw itself/);
    await writeFile(join(tree, 'app'), 'x', { mode: 0o755 });
    expect((await host.registry.publishStack('new', tree)).format).toBe('folder');
  });
});
