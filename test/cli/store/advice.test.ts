// The store that doctor advises: its command works, whatever lies in /var/lib/microvm and the clones folder already.
import { execFileSync } from 'node:child_process';
import { mkdir, symlink } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { expect, test } from 'vitest';
import { MiB } from '../../fixtures/images.js';
import { cliEnvironment, MAIN } from '../run-cli.js';
import { ext4Host, needStores, type StoreHost } from './store-host.js';

needStores();

const IMAGE = '/var/lib/microvm/store.img';

/** What doctor advises on a host with a /var/lib of its own, prepared by a script, and its reflinks after that. */
async function advised(host: StoreHost, prepare: string): Promise<{ fix: string; after: string }> {
  const [lib, bin] = [join(host.root, 'lib'), join(host.root, 'bin')];
  for (const folder of [join(lib, 'microvm'), bin]) await mkdir(folder, { recursive: true });
  await symlink(MAIN, join(bin, 'microvm-rootfs'));
  const reflink = `node -p 'JSON.parse(fs.readFileSync(0)).findings.find(({ check }) => check === "reflink")`;
  const script = `
    mount --bind '${lib}' /var/lib
    ${prepare}
    fix=$(microvm-rootfs doctor --json | ${reflink}.fix')
    echo "$fix"
    sh -ec "$fix" >/dev/null
    microvm-rootfs doctor --json | ${reflink}.status'`;
  const env = cliEnvironment(host, { PATH: `${bin}${delimiter}${process.env.PATH}` });
  const printed = execFileSync('unshare', ['--mount', 'sh', '-ec', script], {
    env,
    encoding: 'utf8',
    stdio: 'pipe',
  });
  const [fix = '', after = ''] = printed.trim().split('\n');
  return { fix, after };
}

test('where nothing is in the way', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  const { fix, after } = await advised(host, '');
  expect(fix).toMatch(new RegExp(`store create ${IMAGE} --size 3\\d\\dM --mount ${host.clonesDir}$`));
  expect(after).toBe('ok');
});

test('a name that is taken, and clones that would be hidden', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  await mkdir(join(host.clonesDir, 'vm-1'), { recursive: true });
  const folder = `${host.clonesDir}-on-store`;
  const { fix } = await advised(host, `echo mine >${IMAGE}`);
  expect(fix).toMatch(/store create \/var\/lib\/microvm\/store-2\.img /);
  expect(fix).toContain(`--mount ${folder} # then make ${folder} the clones folder`);
});

test('a store that is there', { timeout: 60_000 }, async () => {
  const host = await ext4Host();
  const elsewhere = join(host.root, 'elsewhere');
  const create = `microvm-rootfs store create ${IMAGE} --size 300M --sparse --mount '${elsewhere}' >/dev/null`;
  const mounted = await advised(host, create);
  expect(mounted.fix).toMatch(new RegExp(`^# a store is mounted on ${elsewhere}: `));
  const again = await advised(await ext4Host(), `${create}\numount '${elsewhere}'`);
  expect(again.fix).toMatch(new RegExp(`store mount ${IMAGE} --mount \\S+/clones$`));
  expect(again.after).toBe('ok');
});

test('a disk that has no room for one', { timeout: 60_000 }, async () => {
  const host = await ext4Host(500 * MiB);
  expect((await advised(host, '')).fix).toMatch(/^# make room for a store: /);
});
