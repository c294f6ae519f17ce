// Which addresses are public. A registry names the host that issues its tokens, and must not send us to what only this
// host can reach: a metadata service, a neighbour, or this host itself.
import { type LookupAddress, lookup } from 'node:dns';
import * as dns from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import { withoutBrackets } from './proxy.js';

const NOT_PUBLIC = new BlockList();

/** Prefixes under which IPv6 has all of IPv4: the old compatible addresses, NAT64 (RFC 6052), and 6to4 (RFC 3056). */
const WITH_IPV4 = [
  { head: '::', bits: 96 },
  { head: '64:ff9b::', bits: 96 },
  { head: '2002:', bits: 16 },
] as const;

for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 3],
] as const) {
  NOT_PUBLIC.addSubnet(network, prefix, 'ipv4');
  const [a = 0, b = 0] = network.split('.').map(Number);
  const words = `${(a * 256 + b).toString(16)}:0`;
  for (const { head, bits } of WITH_IPV4)
    NOT_PUBLIC.addSubnet(bits === 16 ? `${head}${words}::` : `${head}${words}`, bits + prefix, 'ipv6');
}
for (const [network, prefix] of [
  ['::', 127],
  ['64:ff9b:1::', 48],
  ['fc00::', 7],
  ['fe80::', 9],
  ['ff00::', 8],
] as const)
  NOT_PUBLIC.addSubnet(network, prefix, 'ipv6');

/** For an address, not a name. IPv4 within IPv6 counts as IPv4. */
export function isPublicAddress(address: string): boolean {
  // A zone, as in fe80::1%eth0, is of an address that is not public.
  const family = address.includes('%') ? 0 : isIP(address);
  if (family === 0) return false;
  return !NOT_PUBLIC.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

type Found = (
  error: NodeJS.ErrnoException | null,
  address: string | LookupAddress[],
  family?: number,
) => void;

export class NoPublicAddress extends Error {
  readonly code = 'ENOTFOUND';

  constructor(hostname: string) {
    super(`${hostname} has no public address`);
  }
}

/** `dns.lookup` that finds public addresses only. So the address that is connected to is the one that was checked. */
export function publicLookup(hostname: string, options: object, found: Found): void {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return found(error, []);
    const [first, ...rest] = addresses.filter(({ address }) => isPublicAddress(address));
    if (first === undefined) {
      return found(new NoPublicAddress(hostname), []);
    }
    if ('all' in options && options.all === true) found(null, [first, ...rest]);
    else found(null, first.address, first.family);
  });
}

/**
 * Checks a host that a proxy or skopeo connects to. Rejects with {@link NoPublicAddress} if one of its addresses is not
 * public. If this machine cannot look up names, the proxy decides.
 */
export async function requirePublicHost({ hostname }: URL): Promise<void> {
  const found = await dns.lookup(withoutBrackets(hostname), { all: true }).catch(() => []);
  if (!found.every(({ address }) => isPublicAddress(address))) throw new NoPublicAddress(hostname);
}
