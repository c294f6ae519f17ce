// The clones folder. Tries what its file system can do rather than guess from its name.
import { access, chown, constants, copyFile, link, readdir, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { canLease } from '../../addon/host-facts.js';
import { type RootfsConfig, TEMPLATE_ROOTFS_FILE } from '../../index.js';
import { isMissing } from '../../system/is-missing.js';
import { STATE_FOLDER } from '../../system/state-folder.js';
import { measureCloneSpeed } from '../clone-speed.js';
import { fileSystemType, mountOf, nearestExisting } from '../mounts.js';
import { leftScratch, withScratch } from '../scratch.js';
import { asCommand, asRoot, asUser } from '../shell-words.js';
import { formatSize } from '../sizes.js';
import { formatMicros } from '../times.js';
import { cannotBeRead, type Finding, fail, ok, warn } from './finding.js';
import { storeCommand } from './store.js';
import { openToAll } from './templates.js';

interface ClonesReport {
  readonly findings: readonly Finding[];
  readonly reflinks: boolean;
}

const PROBE_BYTES = 64 * 1024;
const IMAGE_BYTES = 16 * 1024 * 1024;
const ROUNDS = 10;
const WRITTEN_MS = 10_000;
const LOW_SHARE = 0.05;
const LOW_BYTES = 1024 ** 3;

export async function clonesFolder(
  config: RootfsConfig,
  sameFlags: readonly string[],
  signal: AbortSignal,
): Promise<ClonesReport> {
  const { clonesDir } = config;
  // Where there is no folder yet, the one that it will be made in has the same file system, unless something is
  // mounted.
  let folder: string;
  let isFolder: boolean;
  try {
    folder = await nearestExisting(clonesDir);
    isFolder = (await stat(folder)).isDirectory();
  } catch (error) {
    return { findings: [fail('clones', cannotBeRead(clonesDir, error))], reflinks: false };
  }
  const type = (await fileSystemType(folder)) ?? 'an unknown file system';
  const missing = folder === clonesDir ? '' : `, will be made in ${folder}`;
  if (!isFolder) {
    const fix = asRoot('mv', folder, `${folder}.old`);
    return { findings: [fail('clones', `${folder} is not a folder`, fix)], reflinks: false };
  }
  const own = join(folder, STATE_FOLDER);
  const ours = await stat(own).catch(() => undefined);
  if (!(await isWritableFolder(folder))) {
    // Where this user may not even look, it is taken to be in use.
    const isInUse = await isMissing(own).then(
      (missing) => !missing,
      () => true,
    );
    const fix = await fixOfUnwritable(folder, clonesDir, isInUse, sameFlags);
    const why = `${clonesDir} on ${type}${missing}: it cannot be written to by this user, so nothing was tried`;
    return { findings: [fail('clones', why, fix)], reflinks: false };
  }
  if (ours !== undefined && !(await isWritableFolder(own))) {
    const why = `${own} belongs to user ${ours.uid}, and this user cannot write to it, so nothing was tried`;
    const fix = asUser(ours.uid, 'microvm-rootfs', 'doctor', ...sameFlags);
    return { findings: [fail('clones', why, fix)], reflinks: false };
  }
  const findings = [
    ok('clones', `${clonesDir} on ${type}${missing}`),
    ...(await openToAll('clones', folder)),
  ];
  findings.push(...(await leftovers(folder)));
  const space = await freeSpace(folder, sameFlags);
  findings.push(space.finding);
  try {
    const tried = await tryIn(folder, config, sameFlags, type);
    findings.push(...tried.findings, ...(await speed(folder, config, space.bytes, signal)));
    return { findings, reflinks: tried.reflinks };
  } catch (error) {
    signal.throwIfAborted();
    findings.push(fail('clones', `nothing can be made in ${folder}: ${(error as Error).message}`));
    return { findings, reflinks: false };
  }
}

/** `folder` is the clones folder, or the one that it will be made in. */
async function fixOfUnwritable(
  folder: string,
  clonesDir: string,
  isInUse: boolean,
  sameFlags: readonly string[],
): Promise<string> {
  if (await isReadOnly(folder))
    return asRoot('mount', '-o', 'remount,rw', (await mountOf(folder))?.mountPoint ?? folder);
  const { uid } = await stat(folder);
  // With a new owner of a folder in use, everything in it would still be the old one's.
  if (folder === clonesDir && (uid !== 0 || isInUse))
    return asUser(uid, 'microvm-rootfs', 'doctor', ...sameFlags);
  const owner = `${process.geteuid?.()}:${process.getegid?.()}`;
  return `${asRoot('mkdir', '-p', clonesDir)} && ${asRoot('chown', owner, clonesDir)}`;
}

/** What a doctor or a bench left that was killed, or has there at this moment. */
async function leftovers(folder: string): Promise<Finding[]> {
  const left = await leftScratch(folder);
  if (left.length === 0) return [];
  const what = `${left.join(', ')} left by a doctor or bench that was killed, unless one runs now`;
  return [warn('clones', what, asRoot('rm', '-r', ...left))];
}

async function isReadOnly(folder: string): Promise<boolean> {
  return access(folder, constants.W_OK).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'EROFS',
  );
}

async function isWritableFolder(folder: string): Promise<boolean> {
  return access(folder, constants.W_OK | constants.X_OK).then(
    () =>
      readdir(folder).then(
        () => true,
        () => false,
      ),
    () => false,
  );
}

async function freeSpace(
  folder: string,
  sameFlags: readonly string[],
): Promise<{ finding: Finding; bytes: number }> {
  const { bavail, blocks, bsize, ffree, files } = await statfs(folder);
  const bytes = bavail * bsize;
  const text = `${formatSize(bytes)} free of ${formatSize(blocks * bsize)}`;
  const fix = asCommand('microvm-rootfs', 'gc', '--keep-file', 'VMS', '--yes', ...sameFlags);
  const low = (what: string) => ({ finding: warn('space', what, fix), bytes });
  if (bytes < LOW_BYTES) return low(`${text}: less than ${formatSize(LOW_BYTES)}`);
  if (bavail < blocks * LOW_SHARE) return low(`${text}: less than ${LOW_SHARE * 100}%`);
  // 0 where the file system makes them as it needs them.
  if (files > 0 && ffree < files * LOW_SHARE)
    return low(`${text}, but ${ffree} inodes of ${files}: less than ${LOW_SHARE * 100}%`);
  return { finding: ok('space', text), bytes };
}

async function tryIn(
  folder: string,
  config: RootfsConfig,
  sameFlags: readonly string[],
  type: string,
): Promise<ClonesReport> {
  return withScratch(folder, async (scratch) => {
    const probe = join(scratch, 'probe');
    await writeFile(probe, Buffer.alloc(PROBE_BYTES, 'probe'));
    const refusal = await refusalOfReflink(probe, `${probe}-reflink`);
    const reflinks = refusal === undefined;
    const slower = `tried on ${type}: ${refusal}, so clones are hardlinks or copies`;
    const findings = reflinks
      ? [ok('reflink', `tried on ${type}: works`), ...(await templateReflink(scratch, config, sameFlags))]
      : [warn('reflink', slower, await storeCommand(config))];
    findings.push(hardlinkFinding(await refusalOf(link(probe, `${probe}-hardlink`)), reflinks));
    findings.push(await leases(probe));
    return { findings, reflinks };
  });
}

/** ZFS says EAGAIN of what it has not written yet. It writes every 5 s. */
async function refusalOfReflink(from: string, to: string): Promise<string | undefined> {
  const end = performance.now() + WRITTEN_MS;
  for (;;) {
    const refusal = await refusalOf(copyFile(from, to, constants.COPYFILE_FICLONE_FORCE));
    if (refusal !== 'EAGAIN' || performance.now() > end) return refusal;
    await sleep(100);
  }
}

/** The code that it fails with. */
async function refusalOf(attempt: Promise<void>): Promise<string | undefined> {
  return attempt.then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code ?? error.message,
  );
}

/** From where the templates are. Does not try a hardlink, which would change the template's ctime. */
async function templateReflink(
  scratch: string,
  config: RootfsConfig,
  sameFlags: readonly string[],
): Promise<Finding[]> {
  const { templateDir, sealing } = config;
  const stacks = await readdir(templateDir).catch(() => []);
  for (const stack of stacks.sort()) {
    const template = join(templateDir, stack, TEMPLATE_ROOTFS_FILE);
    const refusal = await refusalOfReflink(template, join(scratch, 'template'));
    if (refusal === undefined) return [ok('reflink', 'tried from the templates: works')];
    if (['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM'].includes(refusal)) continue;
    const tried = `tried from the templates: ${refusal}`;
    if (sealing === 'auto')
      return [ok('reflink', `${tried}, so each is copied here once, and then reflinked`)];
    return [
      warn(
        'reflink',
        `${tried}, and without sealing every clone is a copy`,
        `${asCommand('microvm-rootfs', 'doctor', ...sameFlags)} # without --no-sealing, or "sealing": "off"`,
      ),
    ];
  }
  return [];
}

function hardlinkFinding(refusal: string | undefined, reflinks: boolean): Finding {
  if (refusal === undefined) return ok('hardlink', 'tried: works');
  if (reflinks) return ok('hardlink', `tried: ${refusal}; not needed here`);
  return warn('hardlink', `tried: ${refusal}, so every clone is a copy`);
}

async function leases(probe: string): Promise<Finding> {
  try {
    if (!(await canLease(probe)))
      return warn('leases', 'none here: nothing tells whether an image is in use, so gc leaves such clones');
    if ((await giveAway(probe)) && !(await canLease(probe))) {
      const lacks = "without CAP_LEASE or CAP_SETUID, nothing tells whether another user's image is in use";
      return warn(
        'leases',
        `tried: ${lacks}. gc leaves such clones, and growing and committing them is refused`,
      );
    }
    return ok('leases', 'tried: images in use are seen');
  } catch (error) {
    return warn('leases', `could not be tried: ${(error as Error).message.split('\n')[0]}`);
  }
}

/** To another user, as `owner` gives images to VMMs. False if this process may not. */
async function giveAway(probe: string): Promise<boolean> {
  const another = process.geteuid?.() === 1 ? 2 : 1;
  return (await refusalOf(chown(probe, another, -1))) === undefined;
}

async function speed(
  folder: string,
  { sealing }: RootfsConfig,
  freeBytes: number,
  signal: AbortSignal,
): Promise<Finding[]> {
  if (freeBytes < 8 * IMAGE_BYTES) return [warn('speed', 'not measured: too little space')];
  try {
    const measured = await measureCloneSpeed(folder, {
      imageBytes: IMAGE_BYTES,
      rounds: ROUNDS,
      sealing,
      signal,
    });
    const { strategy, cloneMicros, cpMicros } = measured;
    const clone = `a ${strategy} takes ${formatMicros(cloneMicros)}`;
    return [ok('speed', `${clone}, cp ${formatMicros(cpMicros)} (${formatSize(IMAGE_BYTES)} image)`)];
  } catch (error) {
    signal.throwIfAborted();
    return [warn('speed', `not measured: ${(error as Error).message.split('\n')[0]}`)];
  }
}
