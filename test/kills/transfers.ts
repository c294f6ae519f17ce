// Pushes to a registry and pulls from it, as operations. One pack at a time: the order of calls is then the same each
// time.
import type { Call, Operation } from './operations.js';
import { leaveHalf } from './partial-pulls.js';
import { IN_REGISTRY } from './site.js';

const ALONE = { concurrency: 1 } as const;

const pull = (tag: string, options: object = {}): Call => ({
  method: 'pullStack',
  args: [`${IN_REGISTRY}:${tag}`, { ...ALONE, ...options, name: 'pulled' }],
});
const pullSnapshot: Call = {
  method: 'pullSnapshot',
  args: [`${IN_REGISTRY}:snapshot`, { ...ALONE, name: 'pulled' }],
};

const TRANSFER = { template: 'compact', before: [], remote: true } as const;

export const TRANSFERS: readonly Operation[] = [
  {
    ...TRANSFER,
    name: 'pulling a stack',
    telling: true,
    call: pull('stack'),
    leaves: { 'stack pulled': 'cargo' },
  },
  {
    ...TRANSFER,
    name: 'pulling a stack that was half pulled',
    given: leaveHalf,
    call: pull('stack'),
    leaves: { 'stack pulled': 'cargo' },
  },
  {
    ...TRANSFER,
    name: 'pulling a stack that resembles another one',
    given: (site) => site.addTemplate('mine', 'cargo'),
    call: pull('update'),
    leaves: { 'stack pulled': 'update' },
  },
  {
    ...TRANSFER,
    name: 'pulling an update',
    before: [pull('stack')],
    call: pull('update', { replace: true }),
    leaves: { 'stack pulled': 'update' },
  },
  {
    ...TRANSFER,
    name: 'pulling a snapshot',
    call: pullSnapshot,
    leaves: { 'snapshot pulled': 'there' },
  },
  {
    ...TRANSFER,
    name: 'pushing a stack',
    given: (site) => site.addTemplate('mine', 'update'),
    call: { method: 'pushStack', args: ['mine', `${IN_REGISTRY}:stack`, ALONE] },
    leaves: { 'tag stack': 'update' },
  },
  {
    ...TRANSFER,
    name: 'pushing a snapshot',
    before: [
      { method: 'cloneForVm', args: ['other', 'debian', { writable: true }] },
      { method: 'snapshotSlot', args: ['other', 'paused'] },
    ],
    call: { method: 'pushSnapshot', args: ['paused', `${IN_REGISTRY}:paused`, ALONE] },
    leaves: { 'tag paused': 'there' },
  },
];
