// A copy of a file has its name when it is complete, and otherwise there is nothing of it.
import { link, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { native } from '../../src/addon/native.js';
import { inFolderOf } from '../../src/folder/guarded-path.js';
import { type CopiedFile, copyFile } from '../../src/image/file-copy.js';
import { Task } from '../../src/system/task.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { allocatedBytes, sha256Of, writeSparse } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { KiB, MiB, pattern } from '../fixtures/images.js';

type Options = Parameters<typeof copyFile>[4];

const PLAIN = {
  ownerAndMode: { owner: undefined, mode: undefined },
  durable: false,
  beforePublished: async () => {},
};

/** A folder that holds a file, and a way to copy that. */
async function copier(folder: string, sizeBytes = 40 * MiB) {
  const { root } = await Host.in(folder);
  const path = join(root, 'source');
  await writeSparse(path, sizeBytes, { 0: pattern(64 * KiB), [20 * MiB]: pattern(MiB, 2) });
  const copy = async (
    dest: string,
    options: Partial<Options> = {},
    signal?: AbortSignal,
  ): Promise<CopiedFile> => {
    const { source } = await native().openSource(path);
    try {
      return await inFolderOf(dest, (into, name) =>
        copyFile(
          new Task('copying', signal),
          source,
          sizeBytes,
          { folder: into, name },
          { ...PLAIN, ...options },
        ),
      );
    } finally {
      native().dispose(source);
    }
  };
  return { root, path, copy, dest: join(root, 'copy'), names: async () => (await readdir(root)).sort() };
}

describeEachFilesystem((filesystem) => {
  test('a copy has the bytes and the holes, the owner and the mode that were asked for', async () => {
    const { path, copy, dest } = await copier(filesystem.path);
    const isRoot = process.getuid?.() === 0;
    const owner = isRoot ? { uid: 12, gid: 34 } : undefined;
    const made = await copy(dest, { ownerAndMode: { owner, mode: 0o440 }, durable: true });
    expect(made.strategy).toBe(filesystem.reflinks ? 'reflink' : 'copy');
    expect(made.attempts).toHaveLength(filesystem.reflinks ? 0 : 1);
    expect(await sha256Of(dest)).toBe(await sha256Of(path));
    if (filesystem.seekHole) expect(await allocatedBytes(dest)).toBeLessThan(4 * MiB);
    const { mode, uid } = await stat(dest);
    expect(mode & 0o777).toBe(0o440);
    if (isRoot && !filesystem.name.includes('FUSE')) expect(uid).toBe(12);
  });

  test('a name that is taken is left as it is, by a file or by a link to nothing', async () => {
    const { copy, dest, root, names } = await copier(filesystem.path);
    await writeFile(dest, 'precious');
    await symlink('nowhere', join(root, 'link'));
    const before = await names();
    await expect(copy(dest)).rejects.toMatchObject({ errno: -17 });
    await expect(copy(join(root, 'link'))).rejects.toMatchObject({ errno: -17 });
    expect(await readFile(dest, 'utf8')).toBe('precious');
    expect(await names()).toEqual(before);
  });

  test('what fails before it is published leaves nothing, and no name is seen before', async () => {
    const { copy, dest, names } = await copier(filesystem.path);
    let seen: string[] = [];
    const failing = copy(dest, {
      beforePublished: async () => {
        seen = await names();
        throw new Error('the source changed');
      },
    });
    await expect(failing).rejects.toThrow('the source changed');
    expect(seen).not.toContain('copy');
    expect(await names()).not.toContain('copy');
    await copy(dest);
    expect(await names()).toContain('copy');
  });

  test('a name that is taken while it is copied is not replaced', async () => {
    const { copy, dest } = await copier(filesystem.path);
    const taken = copy(dest, { beforePublished: () => writeFile(dest, 'faster') });
    await expect(taken).rejects.toMatchObject({ errno: -17 });
    expect(await readFile(dest, 'utf8')).toBe('faster');
  });
});

test('a copy by bytes tells how far it is, and an abort half-way leaves nothing', async () => {
  const { copy, dest, names } = await copier(dirname((await Host.in()).root));
  const told: number[] = [];
  const made = await copy(dest, {
    onProgress: ({ bytesDone, bytesTotal }) => {
      expect(bytesTotal).toBe(40 * MiB);
      told.push(bytesDone);
    },
  });
  if (made.strategy === 'copy') {
    expect(told.at(-1)).toBe(40 * MiB);
    expect([...told].sort((a, b) => a - b)).toEqual(told);
    const controller = new AbortController();
    const aborted = copy(`${dest}2`, { onProgress: () => controller.abort() }, controller.signal);
    await expect(aborted).rejects.toMatchObject({ code: 'ABORT_ERR' });
    expect(await names()).not.toContain('copy2');
  } else expect(told).toEqual([]);
  await link(dest, `${dest}-link`);
});

test('an empty file is copied too', async () => {
  const { root } = await Host.in();
  const path = join(root, 'empty');
  await writeFile(path, '');
  const { source } = await native().openSource(path);
  await inFolderOf(join(root, 'copy'), (folder, name) =>
    copyFile(new Task('copying', undefined), source, 0, { folder, name }, PLAIN),
  );
  native().dispose(source);
  expect((await stat(join(root, 'copy'))).size).toBe(0);
});
