// The folder of templates and each image in it.
import { access, constants, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { extentCountAt, FEW_EXTENTS } from '../../image/extents.js';
import { type RootfsConfig, TEMPLATE_ROOTFS_FILE } from '../../index.js';
import { fileSystemType, nearestExisting } from '../mounts.js';
import { asRoot, shellWord } from '../shell-words.js';
import { cannotBeRead, type Finding, fail, ok, warn } from './finding.js';

export async function templatesFolder({ templateDir }: RootfsConfig): Promise<Finding[]> {
  try {
    await readdir(templateDir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') {
      const fix = asRoot('install', '-d', '-m', '755', templateDir);
      return [warn('templates', `${templateDir} does not exist: there are no templates`, fix)];
    }
    if (code === 'ENOTDIR') {
      const file = await nearestExisting(templateDir);
      return [fail('templates', `${file} is not a folder`, asRoot('mv', file, `${file}.old`))];
    }
    const fix = code === 'EACCES' ? asRoot('chmod', 'o+rx', templateDir) : undefined;
    return [fail('templates', cannotBeRead(templateDir, error), fix)];
  }
  const type = (await fileSystemType(templateDir)) ?? 'an unknown file system';
  return [ok('templates', `${templateDir} on ${type}`), ...(await openToAll('templates', templateDir))];
}

/** Folders of snapshots are made with the first one. */
export async function snapshotsFolder({ snapshotsDir }: RootfsConfig): Promise<Finding[]> {
  if (snapshotsDir === undefined) return [];
  const check = 'snapshots';
  try {
    if (!(await stat(snapshotsDir)).isDirectory()) {
      const fix = asRoot('mv', snapshotsDir, `${snapshotsDir}.old`);
      return [fail(check, `${snapshotsDir} is not a folder`, fix)];
    }
    await access(snapshotsDir, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [ok(check, `${snapshotsDir} is made with the first snapshot`)];
    return [warn(check, `this user can keep no snapshots in ${snapshotsDir}: ${code}`)];
  }
  return [
    ok(check, `${snapshotsDir} on ${(await fileSystemType(snapshotsDir)) ?? 'an unknown file system'}`),
  ];
}

/** Whoever may write there decides what every VM boots, or reads what is in it. */
export async function openToAll(check: string, folder: string): Promise<Finding[]> {
  const { mode } = await stat(folder);
  if ((mode & 0o002) === 0) return [];
  return [warn(check, `${folder} can be written to by everybody`, asRoot('chmod', 'o-w', folder))];
}

export async function templateImages(
  { templateDir, sealing }: RootfsConfig,
  reflinks: boolean,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const path of await images(templateDir)) findings.push(await image(path, sealing, reflinks));
  return findings;
}

async function images(templateDir: string): Promise<string[]> {
  try {
    const stacks = (await readdir(templateDir)).filter((name) => !name.startsWith('.')).sort();
    const paths = stacks.map((stack) => join(templateDir, stack, TEMPLATE_ROOTFS_FILE));
    const there = await Promise.all(
      paths.map((path) =>
        stat(path).then(
          (s) => s.isFile(),
          () => false,
        ),
      ),
    );
    return paths.filter((_, index) => there[index]);
  } catch {
    // The finding about the folder says so.
    return [];
  }
}

async function image(path: string, sealing: 'auto' | 'off', reflinks: boolean): Promise<Finding> {
  const check = 'template';
  try {
    await access(path, constants.R_OK);
  } catch {
    return fail(check, `${path} cannot be read`, asRoot('chmod', 'a+r', path));
  }
  const extents = await extentCountAt(path).catch(() => undefined);
  if (extents === undefined) return ok(check, `${path}: this file system does not report extents`);
  const many = `${path}: ${extents} extents`;
  if (!reflinks || extents <= FEW_EXTENTS) return ok(check, many);
  if (sealing === 'auto') return ok(check, `${many}; clones come from a sealed image of few`);
  const copy = shellWord(`${path}.new`);
  const fix = `cp --reflink=never --sparse=always ${shellWord(path)} ${copy} && mv ${copy} ${shellWord(path)}`;
  return warn(check, `${many}, each costs every clone time, and sealing is off`, fix);
}
