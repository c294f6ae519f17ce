// An image that is held while its name may go to another file.
import { link, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { HeldImage, refuseInUse } from '../../src/image/held-image.js';
import { isKernelSince } from '../../src/system/kernel-version.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { exists } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { holdLease } from '../fixtures/lease.js';
import { rejection } from '../fixtures/rejection.js';

async function imageIn(folder: string): Promise<string> {
  const image = join((await Host.in(folder)).root, 'image');
  await writeFile(image, 'ours');
  return image;
}

const nothing = async () => {};

describeEachFilesystem((filesystem) => {
  test('a file that another took the name of is still reached, the other is not, and the end tells', async () => {
    const image = await imageIn(filesystem.path);
    const work = async (held: HeldImage) => {
      await held.requireOurs();
      await writeFile(`${image}.new`, 'theirs');
      await rename(`${image}.new`, image);
      const error = await rejection(held.requireOurs(), 'SLOT_BUSY');
      expect(error).toMatchObject({ path: image });
      // A held file is not open: there it went with its name.
      if (!filesystem.hidesOpenFiles) expect(await readFile(held.reached, 'utf8')).toBe('ours');
    };
    const error = await rejection(HeldImage.hold(image, work), 'SLOT_BUSY');
    expect(error.message).toContain('what is there now was not changed');
    expect(await readFile(image, 'utf8')).toBe('theirs');
  });

  test('a removed image stays removed, and a new file of its name is another', async () => {
    const image = await imageIn(filesystem.path);
    await rejection(
      HeldImage.hold(image, () => rm(image)),
      'SLOT_BUSY',
    );
    expect(await exists(image)).toBe(false);
    await writeFile(image, 'ours');
    const work = async (held: HeldImage) => {
      await rm(image);
      await writeFile(image, 'ours');
      await rejection(held.requireOurs(), 'SLOT_BUSY');
    };
    await rejection(HeldImage.hold(image, work), 'SLOT_BUSY');
  });

  test('a name that was away for a moment, or is reached by another folder, is no other file', async () => {
    const image = await imageIn(filesystem.path);
    await HeldImage.hold(image, async (held) => {
      await rename(image, `${image}.away`);
      await rejection(held.requireOurs(), 'SLOT_BUSY');
      await rename(`${image}.away`, image);
      await held.requireOurs();
    });
    await HeldImage.hold(image, (held) => refuseInUse(image, held.reached));
  });
});

test('a link to the image is followed, and one that leads elsewhere by the end is another file', async () => {
  const image = await imageIn(inject('scratch'));
  const [by, other] = [`${image}.link`, `${image}.other`];
  await symlink('image', by);
  await writeFile(other, 'other');
  await HeldImage.hold(by, (held) => held.requireOurs());
  const work = async () => {
    await rm(by);
    await symlink('image.other', by);
  };
  expect(await rejection(HeldImage.hold(by, work), 'SLOT_BUSY')).toMatchObject({ path: by });
});

test('a hardlink or a lease that comes while it is held stops the next change', async ({ skip }) => {
  const image = await imageIn(inject('scratch'));
  if (!isKernelSince(5, 3)) skip('needs Linux 5.3');
  await HeldImage.hold(image, async (held) => {
    await link(image, `${image}.2`);
    const shared = await rejection(held.requireOurs(), 'SHARED_INODE');
    expect(shared).toMatchObject({ path: image });
    expect(shared.message).toContain(`${image} has 2 hardlinks`);
    await rm(`${image}.2`);
    const end = await holdLease(image);
    expect(await rejection(held.requireOurs(), 'SLOT_IN_USE')).toMatchObject({ path: image });
    await end();
    await held.requireOurs();
  });
});

test('the first error is that of the work, and what is not there or cannot be held is named', async () => {
  const image = await imageIn(inject('scratch'));
  const work = async () => {
    await rm(image);
    throw new Error('the work failed');
  };
  await expect(HeldImage.hold(image, work)).rejects.toThrow('the work failed');
  await expect(HeldImage.hold(image, nothing)).rejects.toMatchObject({ code: 'ENOENT', path: image });
  await expect(refuseInUse(image)).rejects.toMatchObject({ code: 'ENOENT', path: image });
  await mkdir(image);
  await expect(HeldImage.hold(join(image, 'in'), nothing)).rejects.toMatchObject({ code: 'ENOENT' });
});

test('it holds nothing when it is done', async () => {
  const image = await imageIn(inject('scratch'));
  let reached = '';
  await HeldImage.hold(image, async (held) => {
    reached = held.reached;
    expect([held.name, held.path]).toEqual([image, image]);
    expect(await readFile(reached, 'utf8')).toBe('ours');
  });
  await expect(readFile(reached, 'utf8')).rejects.toThrow();
  await refuseInUse(image);
});
