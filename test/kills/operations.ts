// Everything that changes something on disk, as calls that any process can make.
import { appendFile, mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KiB, MiB, pattern } from '../fixtures/images.js';
import { IN_SITE, type Site } from './site.js';
import { TRANSFERS } from './transfers.js';

export interface Call {
  readonly method:
    | 'cloneForVm'
    | 'cloneForVmSync'
    | 'cloneMany'
    | 'commitSlot'
    | 'exportTo'
    | 'forkSlot'
    | 'gc'
    | 'prewarm'
    | 'prewarmSnapshot'
    | 'publishStack'
    | 'pullSnapshot'
    | 'pullStack'
    | 'pushSnapshot'
    | 'pushStack'
    | 'recover'
    | 'release'
    | 'removeSnapshot'
    | 'removeStack'
    | 'restoreSnapshot'
    | 'snapshotSlot'
    | 'stack';
  /** `IN_SITE` stands for the folder of the visit, `IN_REGISTRY` for its repository. */
  readonly args: readonly unknown[];
}

/** Any other word is the kind of master whose image must be there. */
export type Left = 'there' | 'absent' | (string & {});

export interface Operation {
  readonly name: string;
  /** In few extents, or in so many that packing it pays. */
  readonly template: 'compact' | 'scattered';
  /** What the process has done before. */
  readonly before: readonly Call[];
  /** What lies in the folders before the process starts. */
  readonly given?: (site: Site) => Promise<void>;
  /** What others do to the folders between that and the call. */
  readonly meanwhile?: (site: Site) => Promise<void>;
  readonly call: Call;
  /** Slots that may disappear: every other one that was there before the call is there afterwards. */
  readonly takes?: readonly string[];
  /**
   * What must be there, and must not, once the call has resolved: `stack NAME`, `snapshot NAME`, `export NAME`, `tag
   * NAME`.
   */
  readonly leaves?: Readonly<Record<string, Left>>;
  /**
   * What the same call says, rather than resolve, when an earlier one has done it: a new name is wanted for a new
   * state.
   */
  readonly once?: string;
  /** Visited on every filesystem, also where time is short. */
  readonly telling?: true;
  /** It pulls or pushes. */
  readonly remote?: true;
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
const exportTo = (vmId: string, options: object = {}): Call => ({
  method: 'exportTo',
  args: [vmId, `${IN_SITE}/jail/disk`, options],
});
const snapshot: Call = { method: 'snapshotSlot', args: ['other', 'paused'] };
const restore = (vmId: string, options: object = {}): Call => ({
  method: 'restoreSnapshot',
  args: ['paused', vmId, options],
});
const prewarmSnapshot: Call = { method: 'prewarmSnapshot', args: ['paused', { count: 2 }] };
const publish = (source: string, options: object = {}): Call => ({
  method: 'publishStack',
  args: ['published', `${IN_SITE}/${source}`, options],
});
const commit = (options: object = {}): Call => ({
  method: 'commitSlot',
  args: ['other', 'published', options],
});

const COMPACT = { template: 'compact', before: [] } as const;
const WARM = { template: 'compact', before: [clone('other')] } as const;

export const OPERATIONS: readonly Operation[] = [
  { ...COMPACT, name: 'first clone', telling: true, call: clone('vm-1') },
  {
    ...COMPACT,
    template: 'scattered',
    name: 'first clone of many extents',
    call: clone('vm-1'),
    on: 'reflink',
  },
  {
    ...COMPACT,
    name: 'first clone of a published stack',
    given: (site) => site.addSource('source', 'replacement'),
    before: [clone('other'), publish('source')],
    call: { method: 'cloneForVm', args: ['vm-1', 'published', WRITABLE] },
    leaves: { 'stack published': 'there' },
  },
  {
    ...WARM,
    template: 'scattered',
    name: 'packing a sealed image',
    telling: true,
    call: prewarm({ count: 0, pack: true }),
    on: 'reflink',
  },
  {
    ...WARM,
    template: 'scattered',
    name: 'first clone of a packed image',
    before: [prewarm({ count: 0, pack: true })],
    call: clone('vm-1'),
    on: 'reflink',
  },
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
  { ...WARM, name: 'fork', telling: true, call: fork('other', 'vm-1'), once: 'SLOT_EXISTS' },
  {
    ...COMPACT,
    name: 'fork with id of a grown slot, durable',
    before: [clone('o/1', GROWN)],
    call: fork('o/1', 'vm/1', { durable: true }),
    once: 'SLOT_EXISTS',
  },
  {
    ...WARM,
    name: 'snapshot',
    call: snapshot,
    leaves: { 'snapshot paused': 'there' },
    once: 'SNAPSHOT_EXISTS',
  },
  {
    ...WARM,
    name: 'snapshot with other files',
    given: (site) => site.addSource('memory', 'scattered'),
    call: { method: 'snapshotSlot', args: ['other', 'paused', { with: [`${IN_SITE}/memory`] }] },
    leaves: { 'snapshot paused': 'there' },
    once: 'SNAPSHOT_EXISTS',
  },
  {
    ...WARM,
    name: 'restoring a snapshot',
    telling: true,
    before: [clone('other'), snapshot],
    call: restore('vm-1'),
    leaves: { 'snapshot paused': 'there' },
    once: 'SLOT_EXISTS',
  },
  {
    ...WARM,
    name: 'restoring a snapshot with id, durable',
    before: [clone('other', GROWN), snapshot],
    call: restore('vm/1', { durable: true }),
    leaves: { 'snapshot paused': 'there' },
    once: 'SLOT_EXISTS',
  },
  {
    ...WARM,
    name: 'filling the pool of a snapshot',
    before: [clone('other'), snapshot],
    call: prewarmSnapshot,
    leaves: { 'snapshot paused': 'there' },
  },
  {
    ...WARM,
    name: 'restoring a snapshot from the pool',
    telling: true,
    before: [clone('other'), snapshot, prewarmSnapshot],
    call: restore('vm/1'),
    leaves: { 'snapshot paused': 'there' },
    once: 'SLOT_EXISTS',
  },
  {
    ...WARM,
    name: 'removing a snapshot that has ready slots',
    before: [clone('other'), snapshot, prewarmSnapshot],
    call: { method: 'removeSnapshot', args: ['paused'] },
    leaves: { 'snapshot paused': 'absent' },
  },
  {
    ...WARM,
    name: 'removing a snapshot',
    before: [clone('other'), snapshot],
    call: { method: 'removeSnapshot', args: ['paused'] },
    leaves: { 'snapshot paused': 'absent' },
  },
  {
    ...WARM,
    name: 'export',
    telling: true,
    call: exportTo('other', { owner: { uid: 1, gid: 1 }, mode: 0o640 }),
    leaves: { 'export disk': 'there' },
    once: 'FILE_EXISTS',
  },
  {
    ...WARM,
    name: 'export, durable',
    call: exportTo('other', { durable: true }),
    leaves: { 'export disk': 'there' },
    once: 'FILE_EXISTS',
  },
  {
    ...COMPACT,
    name: 'export of a hardlink, a copy',
    before: [clone('other', { writable: false })],
    call: exportTo('other', { mode: 0o640, durable: true }),
    leaves: { 'export disk': 'there' },
    once: 'FILE_EXISTS',
    on: 'no reflink',
  },
  {
    ...COMPACT,
    name: 'publishing an image',
    telling: true,
    given: (site) => site.addSource('source', 'replacement'),
    call: publish('source'),
    leaves: { 'stack published': 'there' },
    once: 'STACK_EXISTS',
  },
  {
    ...COMPACT,
    name: 'publishing an image in the place of another',
    given: async (site) => {
      await site.addSource('source', 'replacement');
      await site.addSource('first', 'scattered');
    },
    before: [publish('first')],
    call: publish('source', { replace: true }),
    leaves: { 'stack published': 'there' },
  },
  {
    ...COMPACT,
    name: 'publishing a folder',
    given: leaveTree,
    call: publish('tree'),
    leaves: { 'stack published': 'there' },
    once: 'STACK_EXISTS',
  },
  {
    ...WARM,
    name: 'commit',
    call: commit(),
    leaves: { 'stack published': 'there' },
    once: 'STACK_EXISTS',
  },
  {
    ...WARM,
    name: 'commit in the place of another',
    given: (site) => site.addSource('first', 'scattered'),
    before: [clone('other'), publish('first')],
    call: commit({ replace: true }),
    leaves: { 'stack published': 'there' },
  },
  {
    ...WARM,
    name: 'removing a stack',
    telling: true,
    given: (site) => site.addSource('first', 'scattered'),
    before: [clone('other'), publish('first')],
    call: { method: 'removeStack', args: ['published'] },
    leaves: { 'stack published': 'absent' },
  },
  {
    ...WARM,
    name: 'gc',
    telling: true,
    before: ['other', 'vm-1', 'vm/2'].map((vmId) => clone(vmId)),
    call: { method: 'gc', args: [{ keep: ['other'] }] },
    takes: ['vm-1', 'vm_2'],
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
  ...TRANSFERS,
];

/**
 * What crashes at every stage leave: a dead session, trash, a torn slot, two grows that were cut off, a stale sealed
 * image.
 */
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

async function leaveTree(site: Site): Promise<void> {
  await mkdir(join(site.root, 'tree/etc'), { recursive: true });
  await writeFile(join(site.root, 'tree/etc/hostname'), 'microvm\n');
  await writeFile(join(site.root, 'tree/etc/blob'), pattern(64 * KiB));
}
