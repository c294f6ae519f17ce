// Our own small files: replaced as a whole, and read only where they can be ours.
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readOwnFile, replaceOwnFile } from '../../src/folder/state-files.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';

describeEachFilesystem((filesystem) => {
  test('many who replace one file leave one of theirs, whole, and nothing beside it', async () => {
    const { root } = await Host.in(filesystem.path);
    const [folder, path] = [join(root, 'session'), join(root, 'record')];
    await mkdir(folder);
    const texts = Array.from({ length: 10 }, (_, i) => `${i}`.repeat(1000));
    await Promise.all(texts.map((text) => replaceOwnFile(path, text, folder)));
    expect(texts).toContain(await readOwnFile(path, 1000));
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(folder)).toEqual([]);
  });

  test('what has the name of a folder stays, and nothing is left where the file could not be placed', async () => {
    const { root } = await Host.in(filesystem.path);
    const [folder, path] = [join(root, 'session'), join(root, 'record')];
    for (const each of [folder, path]) await mkdir(each);
    await expect(replaceOwnFile(path, 'x', folder)).rejects.toMatchObject({ code: 'EISDIR' });
    expect(await readdir(folder)).toEqual([]);
    await expect(replaceOwnFile(join(root, 'file'), 'x', join(root, 'none'))).rejects.toMatchObject({
      code: 'ENOENT',
    });
  });

  test('a link, a pipe, a folder and what is too long are not read, and a link is replaced, not followed', async () => {
    const { root } = await Host.in(filesystem.path);
    const at = (name: string) => join(root, name);
    for (const name of ['file', 'victim']) await writeFile(at(name), 'four');
    await symlink('victim', at('link'));
    await mkdir(at('folder'));
    execFileSync('mkfifo', [at('pipe')]);
    for (const name of ['link', 'pipe', 'folder', 'none', 'file/below'])
      expect(await readOwnFile(at(name), 100), name).toBeUndefined();
    expect(await readOwnFile(at('file'), 4)).toBe('four');
    expect(await readOwnFile(at('file'), 3)).toBeUndefined();
    await replaceOwnFile(at('link'), 'new', root);
    expect([await readFile(at('link'), 'utf8'), await readFile(at('victim'), 'utf8')]).toEqual([
      'new',
      'four',
    ]);
  });
});
