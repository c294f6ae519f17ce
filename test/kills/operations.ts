// Everything that changes something on disk, as calls that any process can make.
import { appendFile, mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../fixtures/images.js';
import type { Site } from './site.js';

export interface Call {
  readonly method:
    | 'cloneForVm'
    | 'cloneForVmSync'
    | 'cloneMany'
    | 'forkSlot'
    | 'prewarm'
    | 'recover'
    | 'release'
    | 'snapshotSlot'
    | 'stack';
  readonly args: readonly unknown[];
}

export interface Operation {
  readonly name: string;
  /** In few extents, so that it is sealed by a reflink, or in many, so that it is packed. */
  readonly template: 'compact' | 'scattered';
  /** What the process has done before. */
  readonly before: readonly Call[];
  /** What others do to the folders between that and the call. */
  readonly meanwhile?: (site: Site) => Promise<void>;
  readonly call: Call;
  /** Slots that may disappear: every other one that was there before the call is there afterwards. */
  readonly takes?: readonly string[];
  /** Visited on every filesystem, also where time is short. */
  readonly telling?: true;
  /** Where it means anything; everywhere if not given. */
  readonly on?: 'reflink' | 'no reflink';
}

export const TEMPLATE_BYTES = 4 * MiB;
export const GROWN_BYTES = 8 * MiB;

const WRITABLE = { writable: true } as const;
const GROWN = { ...WRITABLE, sizeBytes: GROWN_BYTES } as const;
const clone = (vmId: string, options: object = WRITABLE): Call => ({
  method: 'cloneForVm',
  args: [vmId, 'debian', options],
});
const prewarm = (options: object): Call => ({ method: 'prewarm', args: ['debian', options] });
const fork = (from: string, vmId: string, options: object = {}): Call => ({
  method: 'forkSlot',
  args: [from, vmId, options],
});
const release = (vmId: string, options: object = {}): Call => ({ method: 'release', args: [vmId, options] });

const COMPACT = { template: 'compact', before: [] } as const;
const WARM = { template: 'compact', before: [clone('other')] } as const;

export const OPERATIONS: readonly Operation[] = [
  { ...COMPACT, name: 'first clone', telling: true, call: clone('vm-1') },
  { ...COMPACT, template: 'scattered', name: 'first clone, packed', call: clone('vm-1'), on: 'reflink' },
  { ...COMPACT, name: 'first grown clone', telling: true, call: clone('vm-1', GROWN) },
  { ...WARM, name: 'warm clone', call: clone('vm-1') },
  { ...WARM, name: 'warm clone, durable', call: clone('vm-1', { ...WRITABLE, durable: true }) },
  {
    ...WARM,
    name: 'warm clone with id, owner and mode',
    call: clone('vm/1', { ...WRITABLE, owner: { uid: 1, gid: 1 }, mode: 0o640 }),
  },
  {
    ...WARM,
    name: 'warm clone on the calling thread',
    call: { ...clone('vm-1'), method: 'cloneForVmSync' },
    on: 'reflink',
  },
  {
    ...WARM,
    name: 'three clones in one trip',
    call: {
      method: 'cloneMany',
      args: [['vm-1', 'vm-2', 'vm-3'].map((vmId) => ({ vmId, stack: 'debian', options: WRITABLE }))],
    },
  },
  { ...COMPACT, name: 'warm grown clone', before: [clone('other', GROWN)], call: clone('vm-1', GROWN) },
  { ...WARM, name: 'growing a slot', telling: true, before: [clone('vm-1')], call: clone('vm-1', GROWN) },
  {
    ...WARM,
    name: 'growing a slot, durable',
    before: [clone('vm-1')],
    call: clone('vm-1', { ...GROWN, durable: true }),
  },
  {
    ...COMPACT,
    name: 'hardlink',
    before: [clone('other', { writable: false })],
    call: clone('vm-1', { writable: false }),
    on: 'no reflink',
  },
  {
    ...COMPACT,
    name: 'making a hardlink independent',
    telling: true,
    before: [clone('vm-1', { writable: false })],
    call: clone('vm-1'),
    on: 'no reflink',
  },
  { ...WARM, name: 'fork', telling: true, call: fork('other', 'vm-1') },
  {
    ...COMPACT,
    name: 'fork with id of a grown slot, durable',
    before: [clone('o/1', GROWN)],
    call: fork('o/1', 'vm/1', { durable: true }),
  },
  {
    ...WARM,
    name: 'snapshot',
    call: { method: 'snapshotSlot', args: ['other', 'paused'] },
  },
  { ...WARM, name: 'filling the pool', call: prewarm({ count: 2 }) },
  { ...WARM, name: 'clone from the pool', before: [prewarm({ count: 2 })], call: clone('vm-1') },
  {
    ...WARM,
    name: 'clone with id from the pool',
    telling: true,
    before: [prewarm({ count: 2 })],
    call: clone('vm/1'),
  },
  {
    ...WARM,
    name: 'release',
    telling: true,
    before: [clone('vm-1')],
    call: release('vm-1'),
    takes: ['vm-1'],
  },
  {
    ...WARM,
    name: 'release, durable',
    before: [clone('vm/1')],
    call: release('vm/1', { durable: true }),
    takes: ['vm_1'],
  },
  {
    ...WARM,
    name: 'recover',
    before: [clone('whole'), clone('torn'), clone('half-1'), clone('half-2')],
    meanwhile: leaveDebris,
    call: { method: 'recover', args: [] },
    takes: ['torn'],
  },
  {
    ...WARM,
    name: 'digest of another template',
    meanwhile: addTemplate,
    call: { method: 'stack', args: ['alpine'] },
  },
  {
    ...WARM,
    name: 'clone of a replaced template',
    before: [clone('other'), prewarm({ count: 1 })],
    meanwhile: (site) => site.replaceTemplate(),
    call: clone('vm-1'),
  },
];

/** What crashes at every stage leave: a dead session, trash, a torn slot, two grows that were cut off, a stale sealed image. */
async function leaveDebris(site: Site): Promise<void> {
  const dead = join(site.stateFolder, 'staging/1-0123456789abcdef');
  await mkdir(join(dead, '0'), { recursive: true });
  await writeFile(join(dead, '0/rootfs.ext4'), 'half');
  await writeFile(join(dead, '1'), 'x');
  const trash = join(site.stateFolder, 'trash/1-0123456789abcdef-3');
  await mkdir(trash);
  await writeFile(join(trash, 'rootfs.ext4'), 'old');
  await truncate(join(site.clonesDir, 'torn/rootfs.ext4.sha256'), 0);
  await writeFile(join(site.clonesDir, 'half-1/rootfs.ext4.size.new'), '12345');
  await writeFile(join(site.clonesDir, 'half-2/rootfs.ext4.size.new'), `${TEMPLATE_BYTES}`);
  const stale = join(site.stateFolder, `sealed/${'0'.repeat(64)}-4096`);
  await mkdir(stale);
  await writeFile(join(stale, 'rootfs.ext4'), Buffer.alloc(4096));
  await appendFile(join(stale, 'record.json'), '{}');
}

async function addTemplate(site: Site): Promise<void> {
  await site.addTemplate('alpine', 'scattered');
}
