// What a container image says of its start, kept beside a template: read by type, and by the image that it is of.
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { expect, inject, test } from 'vitest';
import {
  imageConfigPath,
  imageConfigsIn,
  parseImageConfig,
  readImageConfig,
  removeImageConfigs,
} from '../../src/catalog/image-config.js';
import { sha256 } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';

const OLD = sha256('old');
const NEW = sha256('new');

async function template(): Promise<string> {
  const path = join((await Host.in(inject('scratch'))).root, 'debian/rootfs.ext4');
  await mkdir(dirname(path));
  return path;
}

test('a whole config comes back as it was written, under the digest that it is of alone', async () => {
  const path = await template();
  const config = {
    entrypoint: ['/init'],
    cmd: [],
    env: ['A=b', 'C=d=e'],
    user: '0:0',
    workingDir: '/',
    stopSignal: 'SIGTERM',
    labels: { a: 'b', '': '' },
    platform: 'linux/arm64/v8',
  };
  await writeFile(imageConfigPath(path, NEW), JSON.stringify(config));
  expect(await readImageConfig(path, NEW)).toEqual(config);
  expect(await readImageConfig(path, OLD)).toBeUndefined();
});

test.each<[unknown, object | undefined]>([
  [null, undefined],
  ['text', undefined],
  [5, undefined],
  [[], undefined],
  [['entrypoint'], undefined],
  [{}, {}],
  [{ entrypoint: '/init', cmd: [1], env: ['A=b', null] }, {}],
  [{ entrypoint: { 0: 'x', length: 1 }, cmd: null }, {}],
  [{ user: '', workingDir: null, stopSignal: 15, platform: [] }, {}],
  [{ labels: { a: 'b', c: 1 } }, {}],
  [{ labels: ['a'] }, {}],
  [{ labels: 'text' }, {}],
  [{ labels: {} }, { labels: {} }],
  [{ unknown: 'x', user: 'u' }, { user: 'u' }],
])('%j is read as %j', (value, expected) => {
  expect(parseImageConfig(value)).toEqual(expected);
});

test('labels of any name are labels', () => {
  const config = parseImageConfig(JSON.parse('{"labels":{"__proto__":"x","constructor":"y"}}'));
  expect(Object.keys(config?.labels ?? {})).toEqual(['__proto__', 'constructor']);
  expect(JSON.stringify(config)).toBe('{"labels":{"__proto__":"x","constructor":"y"}}');
});

test.each(['', '{', 'null', '[]', '\0\0\0\0', `"${'x'.repeat(100)}`])(
  'a file that holds %j is no config, and no failure',
  async (contents) => {
    const path = await template();
    await writeFile(imageConfigPath(path, NEW), contents);
    expect(await readImageConfig(path, NEW)).toBeUndefined();
  },
);

test('a link, a folder or a giant in its place is not read', async () => {
  const path = await template();
  await writeFile(`${path}.real`, '{"user":"evil"}');
  await symlink(`${path}.real`, imageConfigPath(path, NEW));
  await mkdir(imageConfigPath(path, OLD));
  const giant = sha256('giant');
  await writeFile(imageConfigPath(path, giant), `{"user":"${'x'.repeat(4 * 1024 * 1024)}"}`);
  for (const digest of [NEW, OLD, giant]) expect(await readImageConfig(path, digest)).toBeUndefined();
});

test('configs are known by name, and those of other images go', async () => {
  const path = await template();
  const folder = dirname(path);
  const other = [
    'rootfs.ext4',
    `rootfs.ext4.${NEW}.json.tmp`,
    'rootfs.ext4.abc.json',
    `xrootfs.ext4.${NEW}.json`,
  ];
  for (const name of other) await writeFile(join(folder, name), name);
  for (const digest of [OLD, NEW]) await writeFile(imageConfigPath(path, digest), '{}');
  expect((await imageConfigsIn(folder)).sort()).toEqual(
    [OLD, NEW].map((digest) => basename(imageConfigPath(path, digest))).sort(),
  );
  await removeImageConfigs(folder, [basename(imageConfigPath(path, NEW))]);
  expect((await readdir(folder)).sort()).toEqual([...other, `rootfs.ext4.${NEW}.json`].sort());
});
