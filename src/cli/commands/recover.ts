import type { Command } from 'commander';
import type { RecoverReport } from '../../index.js';
import { details } from '../output.js';
import { inSession, reported } from '../session.js';

export function addRecover(program: Command): void {
  program
    .command('recover')
    .description('Put the clones folder in order after a crash or a power cut. Safe at any time.')
    .addHelpText(
      'after',
      `
JSON: { "stagingRemoved", "trashRemoved", "sealedRemoved", "pooledRemoved", "tornSlots": [name],
        "tornInUse": [name], "unstamped": [name], "unknown": [name],
        "settledSlots": [name], "notSwept": [path] }

Example:
  microvm-rootfs recover`,
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const { report, throwIfFailed } = await reported(
          session.during('recovering', () => registry.recover({ signal })),
        );
        output.print(report, () => text(report));
        session.tellIfMissing(registry.config.clonesDir);
        throwIfFailed();
      }),
    );
}

function text(report: RecoverReport): string {
  const names = (list: readonly string[]) => (list.length === 0 ? 'none' : list.join(', '));
  return details({
    'Half-made slots removed': `${report.stagingRemoved}`,
    'Trash removed': `${report.trashRemoved}`,
    'Sealed images removed': `${report.sealedRemoved}`,
    'Ready slots removed': `${report.pooledRemoved}`,
    'Torn clones removed': names(report.tornSlots),
    'Torn clones in use (kept)': names(report.tornInUse),
    'Images without a stamp (kept)': names(report.unstamped),
    'Unreadable stamps (kept)': names(report.unknown),
    'Interrupted grows completed or undone': names(report.settledSlots),
    'Folders that may not be written to (kept)': names(report.notSwept),
  });
}
