import type { Command } from 'commander';
import type { SlotDetails } from '../../index.js';
import { details } from '../output.js';
import { inSession } from '../session.js';
import { formatSize } from '../sizes.js';
import { formatTime } from '../times.js';

export function addInspect(program: Command): void {
  program
    .command('inspect')
    .description("Show everything known about a VM's clone.")
    .argument('<vm>', "the VM's id")
    .addHelpText(
      'after',
      `
JSON: as "ls" has it, and "use", "outdated"?, "aloneBytes", "sharedBytes", "extents"?

Example:
  microvm-rootfs inspect vm-1`,
    )
    .action((vm: string, _flags: object, command: Command) =>
      inSession(command, async (session) => {
        const slot = await session.slotOf(vm);
        session.output.print(slot, () => text(slot));
      }),
    );
}

/** Whether it is outdated may be unknown. */
const OUTDATED = {
  true: ', which has been replaced since',
  false: ', which is unchanged',
  undefined: '',
} as const;

/** What they mean for a fork or a snapshot. */
function extentsText(extents: number): string {
  return extents > 1000 ? `${extents}, so forks and snapshots are slow` : `${extents}`;
}

function text(slot: SlotDetails): string {
  const { rawId, stack, outdated, sizeBytes, grown, aloneBytes, sharedBytes } = slot;
  return details({
    VM: rawId,
    Path: slot.path,
    Health: slot.health,
    Use: slot.use,
    Stack: stack === undefined ? 'not known' : `${stack}${OUTDATED[`${outdated}`]}`,
    'SHA-256': slot.sourceSha256,
    Size: `${formatSize(sizeBytes)}${grown ? ', grown' : ''}`,
    'On disk': `${formatSize(aloneBytes)} alone, ${formatSize(sharedBytes)} shared`,
    Extents: slot.extents === undefined ? undefined : extentsText(slot.extents),
    How: slot.strategy,
    Created: formatTime(slot.createdAt),
  });
}
