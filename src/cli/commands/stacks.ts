import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import type { StackInfo } from '../../index.js';
import { table } from '../output.js';
import { inSession, type Session } from '../session.js';
import { formatSize } from '../sizes.js';

export function addStacks(program: Command): void {
  program
    .command('stacks')
    .description('List the templates.')
    .addHelpText(
      'after',
      `
A template that is new, or was changed, is read once for its digest.

JSON: { "stacks": [{ "name", "templatePath", "sizeBytes", "sha256", "image"? }] }
"image" is how a container image is to be started.

Examples:
  microvm-rootfs stacks
  microvm-rootfs stacks --json | jq -r '.stacks[].name'`,
    )
    .action((_flags: object, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const stacks = await session.during('reading templates', () => registry.stacks({ signal }));
        const all = { stacks: session.json ? await withImages(session, stacks) : stacks };
        output.print(all, () =>
          table(
            stacks,
            [
              { title: 'STACK', of: ({ name }) => name },
              { title: 'SIZE', right: true, of: ({ sizeBytes }) => formatSize(sizeBytes) },
              { title: 'SHA-256', of: ({ sha256 }) => sha256.slice(0, 12) },
              { title: 'PATH', of: ({ templatePath }) => templatePath },
            ],
            noneIn(registry.config.templateDir),
          ),
        );
      }),
    );
}

/** As `stack()` tells them, which reads another file of each. One that was removed meanwhile is told as it was. */
async function withImages({ registry, signal }: Session, stacks: readonly StackInfo[]): Promise<StackInfo[]> {
  const found: StackInfo[] = [];
  for (const stack of stacks) found.push((await registry.stack(stack.name, { signal })) ?? stack);
  return found;
}

/** A misspelt folder, or a disk that is not mounted, looks like an empty catalog. */
function noneIn(templateDir: string): string {
  return existsSync(templateDir) ? `No templates in ${templateDir}.` : `There is no folder ${templateDir}.`;
}
