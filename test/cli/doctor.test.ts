// What doctor says of hosts of different kinds. It tries, so it is right where a name would mislead, and it leaves
// nothing.
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { repeatedFlags } from '../../src/cli/config-file.js';
import type { Finding } from '../../src/cli/doctor/finding.js';
import { runtime } from '../../src/cli/doctor/software.js';
import { completeConfig } from '../../src/system/config.js';
import { exitOf } from '../fixtures/child.js';
import { describeEachFilesystem, filesystemNamed } from '../fixtures/each-filesystem.js';
import { snapshot, walk } from '../fixtures/files.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { lacksRoot } from '../fixtures/tools.js';
import { type CliFolders, type CliOptions, cli, MAIN, startOnTerminal } from './run-cli.js';

interface Examination {
  readonly code: number | null;
  readonly findings: readonly Finding[];
}

async function examine(
  folders: CliFolders,
  args: readonly string[] = [],
  options: CliOptions = {},
): Promise<Examination> {
  const { code, stdout, stderr } = await cli(folders, ['doctor', '--json', ...args], options);
  expect(stderr).toBe('');
  const { findings } = JSON.parse(stdout);
  for (const finding of findings) {
    const keys = Object.keys(finding).filter((key) => key !== 'fix');
    expect(keys).toEqual(['check', 'status', 'detail']);
    expect(finding.detail).not.toContain('\n');
  }
  return { code, findings };
}

function statuses({ findings }: Examination, ...checks: readonly string[]): string[] {
  return findings
    .filter(({ check }) => checks.includes(check))
    .map(({ check, status }) => `${check} ${status}`);
}

function of({ findings }: Examination, name: string, status?: string): Finding {
  const found = findings.find(
    ({ check, ...rest }) => check === name && (status ?? rest.status) === rest.status,
  );
  return found ?? expect.fail(`no finding ${name} ${status ?? ''} in ${JSON.stringify(findings)}`);
}

const NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];

describeEachFilesystem(
  (filesystem) => {
    test('what the clones folder can do was tried, and nothing is left', async () => {
      const host = await Host.in(filesystem.path);
      await host.addExt4Template('debian', 4 * MiB);
      await mkdir(host.clonesDir);
      const [before, templates] = [await walk(host.root), await snapshot(host.templateDir)];
      const examination = await examine(host);
      expect(await walk(host.root)).toEqual(before);
      expect(await snapshot(host.templateDir)).toEqual(templates);
      expect(examination.code).toBe(0);
      const reflink = of(examination, 'reflink');
      expect(reflink.status).toBe(filesystem.reflinks ? 'ok' : 'warn');
      expect(reflink.fix ?? '').toMatch(
        filesystem.reflinks ? /^$/ : /microvm-rootfs store create .* --mount /,
      );
      expect(of(examination, 'speed').detail).toMatch(
        filesystem.reflinks ? /^a reflink takes .*, cp / : /^a copy takes .*, cp /,
      );
      expect(of(examination, 'template').detail).toMatch(
        filesystem.fiemap ? /rootfs\.ext4: \d+ extents?/ : /does not report extents/,
      );
      // It says what the library then finds.
      await host.registry.cloneForVm('vm-1', 'debian', { writable: true });
      const leases = (await host.registry.slotInUse('vm-1')) === 'unknown' ? 'leases warn' : 'leases ok';
      expect(statuses(examination, 'leases', 'hardlink')).toEqual(['hardlink ok', leases]);
    });
  },
  ({ name }) => ['XFS', 'ext4', 'tmpfs', 'FUSE (bindfs over ext4)'].includes(name),
);

test('a C library that does not tell its name is not called musl', () => {
  const report = vi.spyOn(process.report, 'getReport').mockReturnValue({ header: {} });
  expect(runtime().detail).toMatch(/, a libc of unknown kind$/);
  report.mockRestore();
});

test('everything is looked at, in one screen', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  await host.addExt4Template('debian', 4 * MiB);
  const { findings } = await examine(host);
  expect([...new Set(findings.map(({ check }) => check))]).toEqual([
    'kernel',
    'runtime',
    'addon',
    'resize2fs',
    'e2fsck',
    'templates',
    'template',
    'clones',
    'space',
    'reflink',
    'hardlink',
    'leases',
    'speed',
    // The XFS of this test is one in a file.
    'store',
  ]);
  expect(of({ code: 0, findings }, 'resize2fs').detail).toMatch(/^1\.\d+\.\d+.*, \//);
  expect(of({ code: 0, findings }, 'addon').detail).toMatch(/^\/.*\.node$/);
  const { stdout } = await cli(host, ['doctor']);
  expect(stdout.split('\n').length).toBeLessThan(25);
  expect(stdout).toMatch(/^ok {4}kernel {5}Linux /);
  expect(stdout).toMatch(/\n\n0 failures, \d+ warnings?\.\n$/);
});

test('folders that are missing are told with what makes them, and not made', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  const folders = { templateDir: join(host.root, 'no/templates'), clonesDir: join(host.root, 'no/clones') };
  const before = await snapshot(host.root);
  const examination = await examine(folders);
  expect(examination.code).toBe(0);
  expect(of(examination, 'templates')).toMatchObject({
    status: 'warn',
    fix: expect.stringContaining(`install -d -m 755 ${folders.templateDir}`),
  });
  expect(of(examination, 'clones')).toMatchObject({
    status: 'ok',
    detail: `${folders.clonesDir} on xfs, will be made in ${host.root}`,
  });
  expect(of(examination, 'reflink').status).toBe('ok');
  expect(await snapshot(host.root)).toEqual(before);
});

test('without root it says what this user may not do', async ({ skip }) => {
  if (lacksRoot()) skip(lacksRoot());
  const host = await Host.in();
  const template = await host.addExt4Template('debian', 4 * MiB);
  await chmod(host.root, 0o755);
  await chmod(template, 0o600);
  await mkdir(host.clonesDir);
  const examination = await examine(host, [], { under: NOBODY });
  expect(examination.code).toBe(1);
  expect(of(examination, 'clones')).toMatchObject({
    status: 'fail',
    fix: `sudo mkdir -p ${host.clonesDir} && sudo chown 65534:65534 ${host.clonesDir}`,
  });
  expect(of(examination, 'template')).toMatchObject({ status: 'fail', fix: `sudo chmod a+r ${template}` });

  await chmod(host.clonesDir, 0o777);
  await chmod(template, 0o644);
  const second = await examine(host, [], { under: NOBODY });
  expect(second.code).toBe(0);
  expect(of(second, 'clones', 'warn')).toMatchObject({ fix: `sudo chmod o-w ${host.clonesDir}` });
  expect(of(second, 'speed').status).toBe('ok');
});

test('a command that it advises has the settings with which doctor ran', async ({ skip }) => {
  if (lacksRoot()) skip(lacksRoot());
  const host = await Host.in();
  await host.addExt4Template('debian', 4 * MiB);
  await chmod(host.root, 0o755);
  await mkdir(join(host.clonesDir, '.microvm-rootfs'), { recursive: true });
  // Into which this user may not even look.
  await chmod(host.clonesDir, 0o700);
  const settings = join(host.root, 'my settings.json');
  await writeFile(settings, '{}');
  const folders = ['--templates', host.templateDir, '--clones', host.clonesDir];
  const run = ['--config', settings, ...folders, '--snapshots', join(host.root, 'kept')];
  const { findings } = await examine({ templateDir: '', clonesDir: '' }, run, { under: NOBODY });
  expect(of({ code: 1, findings }, 'clones', 'fail').fix).toBe(
    `sudo microvm-rootfs doctor --config '${settings}' ${folders.join(' ')} --snapshots ${join(host.root, 'kept')}`,
  );
  expect(repeatedFlags(completeConfig(), {}, {})).toEqual([]);
});

test('little space is told with the bound, and gc with the folder', async () => {
  const host = await Host.in(filesystemNamed('XFS').path);
  const examination = await examine(host);
  const { status, detail, fix } = of(examination, 'space');
  expect(status).toBe('warn');
  expect(detail).toMatch(/ free of .*: less than 1 GiB$/);
  expect(fix).toContain(
    `gc --keep-file VMS --yes --templates ${host.templateDir} --clones ${host.clonesDir}`,
  );
});

test.for([
  ['-lease', 'leases ok'],
  ['-lease,-setuid', 'leases warn'],
])('of another user’s images it says what can be told with %s', async ([capabilities, leases], { skip }) => {
  const reason = lacksRoot();
  if (reason !== undefined) skip(reason);
  const host = await Host.in();
  const under = ['setpriv', `--bounding-set=${capabilities}`, `--inh-caps=${capabilities}`];
  const examination = await examine(host, [], { under });
  expect(statuses(examination, 'leases')).toEqual([leases]);
  expect(of(examination, 'leases').detail).toMatch(leases === 'leases ok' ? /are seen/ : /CAP_LEASE/);
});

test('an addon that does not load is a failure, and the rest is told all the same', async () => {
  const host = await Host.in();
  await host.addExt4Template('debian', 4 * MiB);
  const examination = await examine(host, [], { env: { MICROVM_ROOTFS_ADDON: '/nonexistent.node' } });
  expect(examination.code).toBe(1);
  expect(of(examination, 'addon')).toMatchObject({
    status: 'fail',
    fix: expect.stringMatching(/^cd .* && npm run build:addon$/),
  });
  expect(statuses(examination, 'kernel', 'reflink', 'hardlink', 'leases', 'speed')).toEqual([
    'kernel ok',
    'reflink warn',
    'hardlink ok',
    'leases warn',
    'speed warn',
  ]);
});

test('without e2fsprogs it names the package', async () => {
  const host = await Host.in();
  const none = ['--resize2fs', '/nonexistent', '--e2fsck', '/nonexistent'];
  const examination = await examine(host, none);
  expect(examination.code).toBe(0);
  expect(statuses(examination, 'resize2fs', 'e2fsck')).toEqual(['resize2fs warn', 'e2fsck warn']);
  expect(of(examination, 'resize2fs').fix).toMatch(/install e2fsprogs$/);
  const other = join(host.root, 'other');
  await writeFile(other, '#!/bin/sh\necho something else >&2\n', { mode: 0o755 });
  expect(of(await examine(host, ['--resize2fs', other]), 'resize2fs').detail).toContain('is it resize2fs?');
});

test('a clones path that is no folder is a failure', async () => {
  const host = await Host.in();
  await writeFile(host.clonesDir, '');
  const examination = await examine(host);
  expect(examination.code).toBe(1);
  expect(of(examination, 'clones')).toMatchObject({
    status: 'fail',
    fix: `mv ${host.clonesDir} ${host.clonesDir}.old`,
  });
});

test('snapshots or templates that are no folder are a failure, and snapshots that are missing are none', async () => {
  const host = await Host.in();
  const paths = { snapshots: join(host.root, 's'), templates: join(host.root, 't') };
  for (const path of Object.values(paths)) await writeFile(path, '');
  const args = Object.entries(paths).flatMap(([flag, path]) => [`--${flag}`, path]);
  const examination = await examine(host, args);
  for (const [check, path] of Object.entries(paths))
    expect(of(examination, check)).toMatchObject({ status: 'fail', fix: `mv ${path} ${path}.old` });
  const missing = await examine(host, ['--snapshots', join(host.root, 'missing')]);
  expect(of(missing, 'snapshots').status).toBe('ok');
});

test('folders that cannot be looked at are failures, and keep no command from what does not need them', async () => {
  const host = await Host.in();
  const loop = join(host.root, 'loop');
  await symlink(loop, loop);
  for (const folders of [
    { ...host, templateDir: loop },
    { ...host, clonesDir: loop },
  ]) {
    const examination = await examine(folders);
    const check = folders.templateDir === loop ? 'templates' : 'clones';
    const detail = `${loop} cannot be read: ELOOP`;
    expect(of(examination, check, 'fail')).toEqual({ check, status: 'fail', detail });
    expect(await cli(folders, ['hash', MAIN])).toMatchObject({ code: 0, stderr: '' });
  }
});

test('a templates folder below a file is told with that file', async () => {
  const host = await Host.in();
  const file = join(host.root, 'file');
  await writeFile(file, '');
  const examination = await examine({ ...host, templateDir: join(file, 'templates') });
  expect(of(examination, 'templates')).toMatchObject({ status: 'fail', fix: `mv ${file} ${file}.old` });
});

test('what a killed one left is told with what removes it', async () => {
  const host = await Host.in();
  const left = join(host.clonesDir, '.microvm-rootfs-scratch-x');
  await mkdir(left, { recursive: true });
  const examination = await examine(host);
  expect(of(examination, 'clones', 'warn').fix).toBe(`rm -r ${left}`);
});

test('on a terminal it has colours, unless they are not wanted', async () => {
  const host = await Host.in();
  const { stdout } = await exitOf(startOnTerminal(host, ['doctor']));
  expect(stdout).toContain('\u001b[32mok  \u001b[0m  kernel');
});
