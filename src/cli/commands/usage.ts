import type { Command } from 'commander';
import type { UsageReport } from '../../index.js';
import { count, table } from '../output.js';
import { inSession, reported } from '../session.js';
import { formatSize } from '../sizes.js';

export function addUsage(program: Command): void {
  program
    .command('usage')
    .description('Show how much space clones, sealed images, ready slots and partial pulls take.')
    .addHelpText(
      'after',
      `
JSON: { "stacks": [{ "stack"?, "slots", "templateBytes", "aloneBytes", "totalBytes" }],
  "slots", "totalBytes", "partialPullBytes", "scattered": [{ "vmId", "extents" }],
  "filesystem"?: { "sizeBytes", "availableBytes" } }

Example:
  microvm-rootfs usage`,
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const { report, throwIfFailed } = await reported(
          session.during('measuring', () => registry.usage({ signal })),
        );
        output.print(report, () => text(report));
        session.tellIfMissing(registry.config.clonesDir);
        throwIfFailed();
      }),
    );
}

function text({ stacks, slots, totalBytes, partialPullBytes, scattered, filesystem }: UsageReport): string {
  const list = table(stacks, [
    { title: 'STACK', of: ({ stack }) => stack ?? '-' },
    { title: 'CLONES', right: true, of: ({ slots }) => `${slots}` },
    { title: 'TEMPLATE', right: true, of: ({ templateBytes }) => formatSize(templateBytes) },
    { title: 'CLONES ALONE', right: true, of: ({ aloneBytes }) => formatSize(aloneBytes) },
    { title: 'TOTAL', right: true, of: ({ totalBytes }) => formatSize(totalBytes) },
  ]);
  const free =
    filesystem === undefined
      ? ''
      : `; ${formatSize(filesystem.availableBytes)} of ${formatSize(filesystem.sizeBytes)} are free`;
  const pulls =
    partialPullBytes === 0
      ? ''
      : `\n${formatSize(partialPullBytes)} of that are pulls that run or were interrupted ` +
        '(docs/fleet.md, "When something fails").';
  const [worst] = scattered;
  const slow =
    worst === undefined
      ? ''
      : `\n${count(scattered.length, 'clone')} in more than 1,000 extents, ${worst.vmId} in ${worst.extents}: ` +
        'forks and snapshots of them are slow (docs/guide.md, "Scattered disks").';
  return `${list}\n${count(slots, 'clone')}, ${formatSize(totalBytes)} on disk in all${free}.${pulls}${slow}`;
}
