// Whether the template that something was made from is still there: only then is what was made of it kept.
import { mkdir, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { native } from '../../src/addon/native.js';
import {
  isFileState,
  isTemplateKept,
  recordTemplate,
  stateOf,
  type TemplateRecord,
} from '../../src/catalog/template-record.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

async function recorded(): Promise<TemplateRecord & { folder: string }> {
  const host = await Host.in(inject('scratch'));
  const templatePath = await host.addTemplate('debian', 'bytes');
  const [identity] = await native().identities([templatePath]);
  const record = await recordTemplate(templatePath, identity as NonNullable<typeof identity>);
  return { ...record, folder: host.templateDir };
}

test('a template is wanted as long as it is the same file with the same length and time', async () => {
  const { templatePath, template } = await recorded();
  const wanted = (change: object = {}) =>
    isTemplateKept({ templatePath, template: { ...template, ...change } });
  expect(await wanted()).toBe(true);
  // The record has gone through JSON.
  expect(await isTemplateKept(JSON.parse(JSON.stringify({ templatePath, template })))).toBe(true);
  expect(await wanted({ inode: '1' })).toBe(false);
  expect(await wanted({ sizeBytes: template.sizeBytes + 1 })).toBe(false);
  expect(await wanted({ mtimeNs: `${BigInt(template.mtimeNs) + 1n}` })).toBe(false);
  await utimes(templatePath, 5, 5);
  expect(await wanted()).toBe(false);
});

test.each<[string, (record: { templatePath: string; folder: string }) => Promise<unknown>, boolean]>([
  ['was removed', ({ templatePath }) => rm(templatePath), false],
  ['was removed with its stack', ({ templatePath }) => rm(dirname(templatePath), { recursive: true }), false],
  ['lies in a folder of templates that is away', ({ folder }) => rename(folder, `${folder}.away`), true],
  [
    'lies on a disk that is unmounted, whose empty mount point is left',
    async ({ folder }) => {
      await rename(folder, `${folder}.away`);
      await mkdir(join(folder, '.microvm-rootfs'), { recursive: true });
    },
    true,
  ],
  [
    'lies in a folder of templates in whose place there is another one, with other stacks',
    async ({ folder }) => {
      await rename(folder, `${folder}.away`);
      await mkdir(join(folder, 'alpine'), { recursive: true });
    },
    false,
  ],
  [
    'lies where a file has the name of its stack',
    async ({ templatePath }) => {
      await rm(dirname(templatePath), { recursive: true });
      await writeFile(dirname(templatePath), '');
    },
    false,
  ],
  [
    'is another file by now',
    async ({ templatePath }) => {
      await writeFile(`${templatePath}.new`, 'bytes');
      await rename(`${templatePath}.new`, templatePath);
    },
    false,
  ],
  [
    'was moved, and a link leads to it',
    async ({ templatePath, folder }) => {
      await rename(templatePath, join(folder, 'moved'));
      await symlink(join(folder, 'moved'), templatePath);
    },
    true,
  ],
  [
    'is a folder by now',
    async ({ templatePath }) => {
      await rm(templatePath);
      await mkdir(templatePath);
    },
    false,
  ],
])('what is made of a template that %s', async (_, change, wanted) => {
  const record = await recorded();
  await change(record);
  expect(await isTemplateKept(record)).toBe(wanted);
});

test('the record of an earlier version does not tell an emptied folder of templates from one that is away', async () => {
  const { templatePath, template, folder } = await recorded();
  await rm(dirname(templatePath), { recursive: true });
  expect(await isTemplateKept({ templatePath, template })).toBe(true);
  await mkdir(join(folder, 'alpine'));
  expect(await isTemplateKept({ templatePath, template })).toBe(false);
});

test('a template that cannot be looked at is no template that is gone', async () => {
  const { templatePath, template } = await recorded();
  await rm(templatePath);
  await symlink(templatePath, templatePath);
  const error = await rejection(isTemplateKept({ templatePath, template }), 'ELOOP');
  expect(error.message).toContain(templatePath);
});

test('numbers that are larger than JSON can hold are kept', () => {
  const identity = {
    device: 1n,
    inode: 2n ** 64n - 1n,
    sizeBytes: 2 ** 53 - 1,
    mtimeNs: -(2n ** 62n),
    ctimeNs: 0n,
    links: 1,
    mount: 0n,
  };
  const state = stateOf(identity);
  expect(JSON.parse(JSON.stringify(state))).toEqual(state);
  expect(state).toEqual({ inode: `${2n ** 64n - 1n}`, sizeBytes: 2 ** 53 - 1, mtimeNs: `${-(2n ** 62n)}` });
  expect(isFileState(state)).toBe(true);
  for (const bad of [{ ...state, inode: 5 }, { ...state, sizeBytes: '5' }, { ...state, sizeBytes: 1.5 }, {}])
    expect(isFileState(bad as never)).toBe(false);
});
