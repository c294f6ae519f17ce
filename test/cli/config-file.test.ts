// Settings that a file, the environment or a flag ought not to have. Their order is in config.test.ts.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { effectiveConfig } from '../../src/cli/config-file.js';
import { RootfsRegistry } from '../../src/index.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

async function fileOf(contents: string | Buffer): Promise<string> {
  const path = join((await Host.in(inject('scratch'))).root, 'config.json');
  await writeFile(path, contents);
  return path;
}

const read = async (contents: string | Buffer) => effectiveConfig({ config: await fileOf(contents) }, {});

test('a file may be in UTF-8 or UTF-16, with a mark of that', async () => {
  const text = '{"clonesDir": "/größe"}';
  const big = Buffer.from(`\ufeff${text}`, 'utf16le').swap16();
  for (const contents of [text, `\ufeff${text}`, Buffer.from(`\ufeff${text}`, 'utf16le'), big])
    expect(await read(contents)).toMatchObject({ clonesDir: '/größe' });
  await rejection(read(Buffer.from(text, 'latin1')), 'CONFIG_INVALID');
  await rejection(read(Buffer.from(text, 'utf16le')), 'CONFIG_INVALID');
});

test.each<[object, string]>([
  [{ clonesDir: '' }, '"clonesDir" must be a string'],
  [{ clonesDir: null }, '"clonesDir" must be a string'],
  [{ clonesDir: ' /x' }, 'space around it'],
  [{ clonesDir: '/x\n' }, 'space around it'],
  [{ resize2fsBin: 'a\u0000b' }, 'control character'],
  [{ snapshotsDir: 'x/y' }, 'absolute path'],
  [{ sealing: true }, '"sealing" must be a string'],
  [{ sealedImages: 5 }, '"sealedImages" is not a setting'],
  [{ constructor: 'x' }, '"constructor" is not a setting'],
  [{ registries: [] }, '"registries" must be an object'],
  [{ registries: { 'r.example': { insecure: 1 } } }, '"registries"["r.example"].insecure'],
  [{ registries: { 'https://r.example': {} } }, 'r.example'],
])('a file with %j is refused by what is wrong', async (settings, words) => {
  const { message } = await rejection(read(JSON.stringify(settings)), 'CONFIG_INVALID');
  expect(message).toContain(words);
});

test('a key of every object is no setting either', async () => {
  await rejection(read('{"__proto__": "/x"}'), 'CONFIG_INVALID');
  expect(await read('{}')).not.toHaveProperty('sealing');
});

test('registries come from the file as they are', async () => {
  const registries = { 'r.example:5000': { insecure: true, mirrors: ['m.example'] } };
  expect(await read(JSON.stringify({ registries }))).toMatchObject({ registries });
});

test('an empty flag, as of a variable that is not set, is refused: it would be the working folder', async () => {
  for (const name of ['clones', 'templates', 'snapshots', 'resize2fs', 'e2fsck', 'mke2fs', 'config']) {
    const { message } = await rejection(effectiveConfig({ [name]: '' }, {}), 'INVALID_ARGUMENT');
    expect(message).toContain(`--${name}`);
  }
});

test('an empty variable is none, and one with stray characters is refused', async () => {
  const names = ['MICROVM_ROOTFS_CLONES_DIR', 'MICROVM_ROOTFS_TEMPLATE_DIR', 'MICROVM_ROOTFS_CONFIG'];
  const empty = Object.fromEntries(names.map((name) => [name, '']));
  expect(await effectiveConfig({}, empty)).toEqual(await effectiveConfig({}, {}));
  for (const stray of ['/x\r', '"/x"']) {
    const asked = effectiveConfig({}, { MICROVM_ROOTFS_CLONES_DIR: stray });
    expect((await rejection(asked, 'INVALID_ARGUMENT')).message).toContain('MICROVM_ROOTFS_CLONES_DIR');
  }
});

test('a folder is the one that the library takes: where ".." leads is for the kernel to say', async () => {
  const { root } = await Host.in(inject('scratch'));
  const clones = `${root}/link/../clones`;
  for (const [flags, env] of [
    [{ clones }, {}],
    [{}, { MICROVM_ROOTFS_CLONES_DIR: clones }],
    [{ config: await fileOf(JSON.stringify({ clonesDir: clones })) }, {}],
  ] as const)
    expect((await effectiveConfig(flags, env)).clonesDir).toBe(clones);
  const config = await effectiveConfig({ clones: 'a/../b', templates: `${root}/t` }, {});
  expect(config.clonesDir).toBe(`${process.cwd()}/a/../b`);
  const registry = new RootfsRegistry(config);
  expect(registry.config.clonesDir).toBe(config.clonesDir);
  await registry.close();
});

test('what is a folder, or cannot be read, is told by its name', async () => {
  const { root } = await Host.in(inject('scratch'));
  for (const path of [root, join(root, 'missing'), join(root, 'a\nb')]) {
    const error = await rejection(effectiveConfig({ config: path }, {}), 'CONFIG_INVALID');
    expect(error.path).toBe(path);
  }
});
