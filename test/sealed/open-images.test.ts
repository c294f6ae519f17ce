// Sealed images that are kept open: no more descriptors than allowed, and none that is lost.
import { readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { native } from '../../src/addon/native.js';
import { isSealedImage, OpenImages, type SealedImage } from '../../src/sealed/open-images.js';
import { writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';

async function opener() {
  const { root } = await Host.in(inject('scratch'));
  const [path, another] = [join(root, 'image'), join(root, 'another')];
  await writeSparse(path, 4096);
  await writeSparse(another, 4096);
  const open = async (file: string, key: string): Promise<SealedImage> => {
    const { source, info } = await native().openSource(file);
    const { identity } = info;
    const counts = { clones: 0, clonesTouched: 0, packAfter: 1, lastUse: 0 };
    return { sealed: true, key, source, identity, extents: 1, packed: false, ...counts };
  };
  return {
    image: (key = 'key') => open(path, key),
    otherImage: (key = 'key') => open(another, key),
    /** How often this process has the file open. */
    descriptors: async () => {
      const open = await Promise.all(
        (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
      );
      return open.filter((target) => target === path).length;
    },
  };
}

test('an image is found by digest and size, and closed once', async () => {
  const { image, descriptors } = await opener();
  const images = new OpenImages();
  const [small, large] = [await image(), await image()];
  images.add('a', 1, small);
  images.add('a', 2, large);
  expect([images.get('a', 1), images.get('a', 2)]).toEqual([small, large]);
  expect([images.get('a', 3), images.get('b', 1)]).toEqual([undefined, undefined]);
  images.close('a', 3);
  images.close('b', 1);
  expect(await descriptors()).toBe(2);
  images.close('a', 1);
  images.close('a', 1);
  expect(images.get('a', 1)).toBeUndefined();
  expect(images.get('a', 2)).toBe(large);
  expect(await descriptors()).toBe(1);
  images.closeAll();
  images.closeAll();
  expect(images.get('a', 2)).toBeUndefined();
  expect(await descriptors()).toBe(0);
});

test('one that takes the place of another closes it', async () => {
  const { image, descriptors } = await opener();
  const images = new OpenImages();
  for (let i = 0; i < 5; i++) images.add('a', 1, await image(`${i}`));
  expect(images.get('a', 1)?.key).toBe('4');
  expect(await descriptors()).toBe(1);
  images.closeAll();
  expect(await descriptors()).toBe(0);
});

test('of more than 256 the least recently used are closed first', async () => {
  const { image, descriptors } = await opener();
  const images = new OpenImages();
  for (let i = 0; i < 256; i++) images.add(`${i}`, 1, await image());
  expect(await descriptors()).toBe(256);
  images.get('0', 1);
  images.add('0', 2, await image());
  expect(await descriptors()).toBe(256);
  expect(images.get('1', 1)).toBeUndefined();
  expect([images.get('0', 1), images.get('0', 2)].every((each) => each !== undefined)).toBe(true);
  for (let i = 0; i < 300; i++) images.add('many sizes', i, await image());
  expect(await descriptors()).toBe(256);
  expect(images.get('many sizes', 299)).toBeDefined();
  expect(images.get('many sizes', 43)).toBeUndefined();
  expect(images.get('many sizes', 44)).toBeDefined();
  images.closeAll();
  expect(await descriptors()).toBe(0);
});

test('what clones of an image have cost still counts when it is opened again, unless it is another file', async () => {
  const { image, otherImage } = await opener();
  const images = new OpenImages();
  const first = await image('hot');
  images.add('a', 1, first);
  first.clones = 18;
  first.packAfter = 40;
  for (let i = 0; i < 256; i++) images.add(`${i}`, 1, await image(`${i}`));
  expect(images.get('a', 1)).toBeUndefined();
  expect(images.known('a', 1, 'hot')).toMatchObject({ clones: 18 });
  images.add('a', 1, await image('hot'));
  expect(images.get('a', 1)).toMatchObject({ clones: 18, packAfter: 40 });
  images.close('a', 1);
  images.add('a', 1, await otherImage('hot'));
  expect(images.get('a', 1)).toMatchObject({ clones: 0, packAfter: 1 });
  images.closeAll();
});

test('a sealed image is told from a template that is cloned itself', async () => {
  const { image } = await opener();
  const sealed = await image();
  expect(isSealedImage(sealed)).toBe(true);
  expect(isSealedImage({ source: sealed.source, identity: sealed.identity, sealed: false })).toBe(false);
  native().dispose(sealed.source);
});
