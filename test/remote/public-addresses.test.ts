// Which addresses a registry may send us to, in every spelling that an address can have.
import { expect, test } from 'vitest';
import { isPublicAddress, publicLookup } from '../../src/remote/public-addresses.js';

const PRIVATE_V4 = [
  '0.0.0.0',
  '0.255.255.255',
  '10.0.0.1',
  '100.64.0.1',
  '100.127.255.255',
  '127.0.0.1',
  '127.255.255.254',
  '169.254.169.254',
  '172.16.0.0',
  '172.31.255.255',
  '192.168.1.1',
  '198.19.255.255',
  '224.0.0.1',
  '255.255.255.255',
];

const PUBLIC_V4 = [
  '1.1.1.1',
  '9.255.255.255',
  '100.63.255.255',
  '100.128.0.0',
  '172.15.0.1',
  '172.32.0.1',
  '223.255.255.255',
];

const hex = (address: string) => {
  const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
};

/** The forms in which IPv6 holds an address of IPv4. */
const within = (address: string) => [
  `::ffff:${address}`,
  `::ffff:${hex(address)}`,
  `0:0:0:0:0:ffff:${hex(address)}`,
  `64:ff9b::${hex(address)}`,
  `64:ff9b::${address}`,
  `2002:${hex(address)}::1`,
  `::${hex(address)}`,
];

test.each(PRIVATE_V4)('%s is not public, nor is it within IPv6', (address) => {
  expect(isPublicAddress(address)).toBe(false);
  for (const form of within(address)) expect(isPublicAddress(form), form).toBe(false);
});

test.each(PUBLIC_V4)('%s is public, also within IPv6', (address) => {
  expect(isPublicAddress(address)).toBe(true);
  for (const form of within(address)) expect(isPublicAddress(form), form).toBe(true);
});

test.each([
  '::',
  '::1',
  '0:0:0:0:0:0:0:1',
  'fc00::1',
  'fd00:ec2::254',
  'fe80::1',
  'fe80::1%eth0',
  'fec0::1',
  'ff02::1',
  '64:ff9b:1::1',
])('%s is not public', (address) => {
  expect(isPublicAddress(address)).toBe(false);
});

test('addresses of the wide network are public, and what is no address is not', () => {
  for (const address of ['2606:4700::1111', '2a00::1', '64:ff9b::808:808'])
    expect(isPublicAddress(address)).toBe(true);
  for (const text of [
    '',
    'registry.example',
    '1.1.1',
    '1.1.1.1.',
    '0x7f.0.0.1',
    '2130706433',
    '[::1]',
    ' 1.1.1.1',
    '1.1.1.1\0',
  ])
    expect(isPublicAddress(text), text).toBe(false);
});

test('a name of this host is not found, in whichever way it is asked for', async () => {
  for (const options of [{}, { all: true }, { all: false, family: 4 }]) {
    const error = await new Promise<NodeJS.ErrnoException | null>((resolve) =>
      publicLookup('localhost', options, resolve),
    );
    expect(error).toMatchObject({ code: 'ENOTFOUND' });
    expect(error?.message).toContain('localhost');
  }
});

test('an address that is asked for as a name is found if it is public', async () => {
  const found = (options: object) =>
    new Promise((resolve, reject) =>
      publicLookup('1.1.1.1', options, (error, address, family) =>
        error === null ? resolve([address, family]) : reject(error),
      ),
    );
  expect(await found({})).toEqual(['1.1.1.1', 4]);
  expect(await found({ all: true })).toEqual([[{ address: '1.1.1.1', family: 4 }], undefined]);
});
