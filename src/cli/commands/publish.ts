import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ImageFormat, PublishedStack } from '../../index.js';
import { isSha256 } from '../../system/sha256.js';
import { withOrderAdvice } from '../argument-order.js';
import { details } from '../output.js';
import { inSession } from '../session.js';
import { formatSize, parseSize } from '../sizes.js';

const FORMATS: readonly ImageFormat[] = ['raw', 'gzip', 'zstd', 'xz', 'qcow2', 'tar', 'folder'];

interface PublishFlags {
  readonly replace?: boolean;
  readonly sha256?: string;
  readonly size?: number;
  readonly format?: ImageFormat;
  readonly platform?: string;
  readonly includeMounts?: boolean;
}

export function addPublish(program: Command): void {
  program
    .command('publish')
    .description('Make a template from a container image, a disk image, a tar or a folder.')
    .argument('<name>', 'the name of the template')
    .argument(
      '<source>',
      'a container image (docker://…, oci:DIR), an image (raw, gzip, zstd, xz, qcow2), or a tar or ' +
        'folder of a root filesystem; - is standard input',
    )
    .option('--replace', 'replace an existing template')
    .option('--sha256 <digest>', 'refuse an image with another digest', parseDigest)
    .option('--size <size>', 'the size of the file system for a tar or folder: 2G', parseSize)
    .addOption(
      new Option('--format <format>', 'the format of the source, if it cannot be detected').choices(FORMATS),
    )
    .option('--include-mounts', 'also publish what is mounted in a folder')
    .option('--platform <platform>', 'the platform to take, if there are several, such as linux/arm64')
    .addHelpText(
      'after',
      `
JSON: { "name", "templatePath", "sizeBytes", "sha256", "replaced", "format", "image"? }

Examples:
  microvm-rootfs publish debian-12 docker://debian:12
  docker export "$(docker create debian:12)" | microvm-rootfs publish debian-12 -
  microvm-rootfs publish debian-12 ./rootfs.ext4
  microvm-rootfs publish debian-12 ./rootfs.tar.zst --size 2G
  microvm-rootfs publish debian-12 ./rootfs.ext4 --replace --sha256 "$(cut -c1-64 rootfs.sha256)"`,
    )
    .action((name: string, source: string, flags: PublishFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const { replace, sha256, size, format, platform, includeMounts } = flags;
        const publishing = session.during(`publishing ${name}`, (onProgress) =>
          registry.publishStack(name, source, {
            ...(replace ? { replace } : {}),
            ...(sha256 === undefined ? {} : { expectedSha256: sha256 }),
            ...(size === undefined ? {} : { sizeBytes: size }),
            ...(format === undefined ? {} : { format }),
            ...(platform === undefined ? {} : { platform }),
            ...(includeMounts ? { includeMounts } : {}),
            signal,
            onProgress,
          }),
        );
        const stack = await withOrderAdvice(publishing, 'ENOENT', () => name, 'publish NAME SOURCE');
        output.print(stack, () => stackText(stack));
      }),
    );
}

export function stackText(stack: PublishedStack): string {
  return details(stackFacts(stack));
}

export function stackFacts({
  name,
  templatePath,
  sizeBytes,
  sha256,
  replaced,
}: PublishedStack): Record<string, string> {
  return {
    Stack: `${name}${replaced ? ', in the place of the one before' : ''}`,
    Path: templatePath,
    Size: formatSize(sizeBytes),
    'SHA-256': sha256,
  };
}

export function parseDigest(text: string): string {
  const digest = text.toLowerCase();
  if (!isSha256(digest)) throw new InvalidArgumentError('A digest is 64 hex digits.');
  return digest;
}
