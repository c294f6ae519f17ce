import { resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import type { StackInfo } from '../../index.js';
import { details } from '../output.js';
import { planned } from '../planned.js';
import { inSession } from '../session.js';
import { formatSize, parseSize } from '../sizes.js';

interface PublishFlags {
  readonly replace?: boolean;
  readonly sha256?: string;
  readonly size?: number;
  readonly format?: string;
}

export function addPublish(program: Command): void {
  program
    .command('publish')
    .description('Make a template of an image: all of it at once, or nothing.')
    .argument('<name>', 'how the template is to be called')
    .argument('<source>', 'the image')
    .option('--replace', 'take the place of a template of that name')
    .option('--sha256 <digest>', 'refuse an image of another digest', parseDigest)
    .option('--size <size>', 'grow it to this', parseSize)
    .option('--format <format>', 'what the source is, where it does not say itself')
    .addHelpText(
      'after',
      `
JSON: { "name", "templatePath", "sizeBytes", "sha256" }

Examples:
  microvm-rootfs publish debian-12 ./rootfs.ext4
  microvm-rootfs publish debian-12 ./rootfs.ext4 --replace --sha256 "$(cut -c1-64 rootfs.sha256)"`,
    )
    .action((name: string, source: string, flags: PublishFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const { replace, sha256, size, format } = flags;
        const stack = await session.during(`publishing ${name}`, (onProgress) =>
          planned(registry).publishStack(name, resolve(source), {
            ...(replace ? { replace } : {}),
            ...(sha256 === undefined ? {} : { expectedSha256: sha256 }),
            ...(size === undefined ? {} : { sizeBytes: size }),
            ...(format === undefined ? {} : { format }),
            signal,
            onProgress,
          }),
        );
        output.print(stack, () => stackText(stack));
      }),
    );
}

export function stackText({ name, templatePath, sizeBytes, sha256 }: StackInfo): string {
  return details({ Stack: name, Path: templatePath, Size: formatSize(sizeBytes), 'SHA-256': sha256 });
}

function parseDigest(text: string): string {
  if (!/^[0-9a-f]{64}$/i.test(text)) throw new InvalidArgumentError('A digest is 64 hex digits.');
  return text.toLowerCase();
}
