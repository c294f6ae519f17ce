import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { expect, test } from 'vitest';
import { namedIn, readIdList } from '../../src/cli/id-list.js';
import { Host } from '../fixtures/host.js';
import { rejection } from '../fixtures/rejection.js';

const VMS = ['vm-1', 'vm-2', 'vm-12', 'a/b', 'café'];

async function idsOf(bytes: string | Buffer): Promise<string[]> {
  const path = join((await Host.in()).root, 'list');
  await writeFile(path, bytes);
  return (await readIdList(path)).map(({ id }) => id);
}

const utf16be = (text: string) => Buffer.from(text, 'utf16le').swap16();
const listed = (...ids: string[]) => ids.map((id) => ({ id, where: 'a line' }));

test.each([
  ['lines of Windows', 'vm-1\r\nvm-2\r\n'],
  ['lines of an old Mac', 'vm-1\rvm-2\r'],
  ['a byte-order mark', '\ufeffvm-1\nvm-2\n'],
  ['spaces and tabs around ids', ' vm-1\t\n\tvm-2 \n'],
  ['spaces that do not break', '\u00a0vm-1\nvm-2\u00a0'],
  ['characters without a width', 'vm-1\u200b\n\u2060vm-2'],
  ['characters that ask for another look', 'vm-1\ufe0f\nvm\u3164-2'],
  ['empty lines, and none at the end', '\n\nvm-1\n \nvm-2'],
  ['UTF-16 of a small-endian host', Buffer.from('\ufeffvm-1\r\nvm-2\r\n', 'utf16le')],
  ['UTF-16 of a big-endian host', utf16be('\ufeffvm-1\nvm-2\n')],
])('a list with %s names the VMs that a person sees', async (_, bytes) => {
  expect(await idsOf(bytes)).toEqual(['vm-1', 'vm-2']);
});

test.each([
  ['UTF-16 without a mark', Buffer.from('vm-1\n', 'utf16le')],
  ['UTF-32', Buffer.from('fffe000076000000', 'hex')],
  ['Latin-1', Buffer.from('caf\xe9\n', 'latin1')],
  ['NUL between ids, as find -print0 writes them', 'vm-1\0vm-2\0'],
  ['a colour of a terminal', '\x1b[32mvm-1\x1b[0m\n'],
])('a list in %s is refused', async (_, bytes) => {
  await rejection(idsOf(bytes), 'INVALID_ARGUMENT');
});

test('a list that was cut off within its last line is refused; one that only lacks a line end is not', async () => {
  const named = async (text: string) => {
    const path = join((await Host.in()).root, 'list');
    await writeFile(path, text);
    return [...(await namedIn(await readIdList(path), VMS))];
  };
  expect(await named('vm-2\ncafé')).toEqual(['vm-2', 'café']);
  expect(await named('vm-2\nother')).toEqual(['vm-2']);
  expect(await named('vm-2\nca\n')).toEqual(['vm-2']);
  // Nothing that the rest could name is missing.
  expect(await named('café\nca')).toEqual(['café']);
  for (const text of ['vm-2\nca', 'vm-2\r\nVM', 'a/']) {
    const { message } = await rejection(named(text), 'INVALID_ARGUMENT');
    expect(message).toMatch(/line \d of .*list is ".*the list may be cut off/);
  }
});

test('two Unicode forms of an id are one VM', async () => {
  expect([...(await namedIn(listed('cafe\u0301'), VMS))]).toEqual(['café']);
  expect([...(await namedIn(listed('café'), ['cafe\u0301']))]).toEqual(['cafe\u0301']);
});

test.each([
  'vm-1 # the first',
  'vm-1\trunning',
  'vm-1,vm-2',
  '"vm-1"',
  '["vm-1","vm-2"]',
  'id=vm-1',
  'VM-1',
  'vm-1;',
  '# a/b is retired',
  './vm-1',
  '/srv/clones/vm-1/',
  'vm-1.service',
  'microvm@vm-1.service',
  'vm_1',
  'vm-1\\n',
  'the disk a/b.img',
  'vm\\x2d1',
  'microvm@vm\\x2d1.service',
  'caf\\xc3\\xa9',
  'caf%C3%A9',
  'vm%2D1',
  'vm\\u002d1',
  'vm\\-1',
  'caf\\303\\251',
  '"vm\\0551"',
  'caf=C3=A9',
  'vm=2D1',
  'vm&#45;1',
  'vm&hyphen;1',
  'a&sol;b',
  '&quot;vm-1&quot;',
  'vm&#x2d;1',
  'vm–1',
  'vm‑1',
  'vm−1 # the first',
  'ｖｍ-１',
  'vm -1',
  'vm 1',
  'vm-1\u2800',
  'a-b.mount',
  'vm…',
  'microvm@v…1.service loaded',
  'vm-...',
  'vm-',
])('a line that is no id but may mean one is refused: %s', async (line) => {
  await rejection(namedIn(listed('vm-12', line), VMS), 'INVALID_ARGUMENT');
});

test.each([
  '*',
  'vm-*',
  '"vm-*",',
  '- vm-* # the web tier',
  '["vm-*"]',
  'vm-?',
  'vm-??',
  'VM-＊',
  'vm-[12]',
  'vm-[0-9]+',
  'vm-[!1]',
  'vm-{1,2}',
  'vm-{1..3}',
  'vm-1..2',
  'vm-1..12',
  'vm-1,2',
  'vm-1 to 2',
  'vm-.*',
  'vm-.+',
  'vm-\\d+',
  '^vm',
  '^vm-\\d+$',
  'vm-(1|2)',
  'vm-%',
  'vm-$i',
  'vm-$ID*',
  'vm-{{ id }}',
  'all',
  'ALL',
  '--all',
  'all VMs',
  'everything',
  'none',
])('a pattern that may mean a VM which is not on the list is refused: %s', async (line) => {
  const error = await rejection(namedIn(listed('vm-1', line), ['vm-1', 'vm-2']), 'INVALID_ARGUMENT');
  expect(error.message).toContain('"vm-2"');
});

test('an unfinished or other pattern that means no VM of this host is let be', async () => {
  const lines = ['web-*', 'db-[12]', 'is it used?', '* vm-1', '[x] vm-1', '{1-2', 'at 100%', 'vm-1*1', '[]'];
  expect([...(await namedIn(listed('vm-1', ...lines), ['vm-1', 'vm-2']))]).toEqual(['vm-1']);
  const names = ['all', 'vm-*', 'vm-1'];
  expect([...(await namedIn(listed('all', 'vm-*'), names))]).toEqual(['all', 'vm-*']);
});

const UUID = '6d766d72-6f6f-4466-8000-0000000000a1';
const BARE = UUID.replaceAll('-', '');

test.each([
  [UUID, BARE],
  [UUID, BARE.toUpperCase()],
  [UUID, `{${BARE}}`],
  [UUID, `${BARE} running`],
  [BARE, UUID],
  ['52-54-00-12-34-56', '5254.0012.3456'],
  ['2d-1', 'id=2D-1'],
])('%s may be meant by %s', async (vm, line) => {
  await rejection(namedIn(listed('vm-1', line), ['vm-1', vm]), 'INVALID_ARGUMENT');
});

test('short ids that differ in punctuation alone are two', async () => {
  expect([...(await namedIn(listed('vm-1', 'vm-12', '1234'), ['vm-1', 'vm-1-2', '12-34']))]).toEqual([
    'vm-1',
  ]);
});

test('a line of another id that goes on before or behind is let be', async () => {
  expect([
    ...(await namedIn(listed('vm-1', 'a/b', 'vm-22', 'web-vm-2', 'vm-2-old', 'vm-2x'), [
      'vm-1',
      'a/b',
      'vm-2',
    ])),
  ]).toEqual(['vm-1', 'a/b']);
});

test('a line that is cut short, as no VM here begins, is let be', async () => {
  const lines = ['web-…', 'db-', '...', '---', '# more of them …', 'of vm-2-…', 'vm-1 and vm-2'];
  expect([...(await namedIn(listed('vm-1', 'vm-2', ...lines), ['vm-1', 'vm-2', 'a/b']))]).toEqual([
    'vm-1',
    'vm-2',
  ]);
});

test('a list of a whole cluster in one line takes no time', async () => {
  const line = JSON.stringify(Array.from({ length: 20_000 }, (_, i) => `other-${i}`));
  const existing = Array.from({ length: 5000 }, (_, i) => `vm-${i}`);
  const started = process.cpuUsage();
  expect([...(await namedIn(listed('vm-1', line), existing))]).toEqual(['vm-1']);
  expect(process.cpuUsage(started).user).toBeLessThan(5_000_000);
});

test('a line that means no VM of this host is let be, as one that says twice what is kept', async () => {
  expect([...(await namedIn(listed('vm-1', 'vm-99', 'vm-1 (again)'), VMS))]).toEqual(['vm-1']);
});

test('a long list and many VMs hold nothing up', async () => {
  const delays = monitorEventLoopDelay({ resolution: 1 });
  const vms = (count: number) => Array.from({ length: count }, (_, i) => `vm-${i}`);
  const path = join((await Host.in()).root, 'list');
  await writeFile(path, vms(200_000).join('\n'));
  const others = Array.from({ length: 5000 }, (_, i) => `other-${i}`);
  const line = JSON.stringify(vms(100_000));
  delays.enable();
  const started = process.cpuUsage();
  const list = await readIdList(path);
  expect((await namedIn(list, vms(200_000))).size).toBe(200_000);
  expect([...(await namedIn(listed('gone', 'vm-1'), vms(200_000)))]).toEqual(['vm-1']);
  expect([...(await namedIn(listed(...others), vms(20_000)))]).toEqual([]);
  expect([...(await namedIn(listed(line), ['x']))]).toEqual([]);
  expect(process.cpuUsage(started).user).toBeLessThan(10_000_000);
  delays.disable();
  // What is held here are the arrays of the test itself, and the garbage collector.
  expect(delays.max / 1e6).toBeLessThan(200);
});
