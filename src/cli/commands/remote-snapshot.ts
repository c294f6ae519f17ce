import type { Command } from 'commander';
import type { PulledSnapshot } from '../../index.js';
import { details } from '../output.js';
import { inSession } from '../session.js';
import { formatSize } from '../sizes.js';
import { parseDigest } from './publish.js';
import { concurrency, level, type PushFlags, pushedText, REFERENCE } from './remote.js';
import { snapshotText } from './snapshot.js';

interface PullFlags {
  readonly name?: string;
  readonly sha256?: string;
  readonly concurrency?: number;
}

export function addPushSnapshot(program: Command): void {
  program
    .command('push-snapshot')
    .description('Push a snapshot to an OCI registry: the disk and its other files.')
    .argument('<snapshot>', "the snapshot's name")
    .argument('<reference>', 'where to: HOST/NAME:TAG')
    .option(
      '--base <reference>',
      "the VM's template, or an earlier snapshot, in the same registry: data that it has is not sent",
    )
    .addOption(level())
    .addOption(concurrency('send'))
    .addHelpText(
      'after',
      `
JSON: { "reference", "digest", "sha256" (of SHA256SUMS), "sizeBytes", "uploadedBytes", "reusedBytes" }

Logins and settings are those of "push".

Example:
  microvm-rootfs push-snapshot before-move registry.example/moves/vm-1:7 \\
    --base registry.example/templates/debian-12:2026-11`,
    )
    .action((name: string, reference: string, flags: PushFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const pushed = await session.during(`pushing ${name}`, (onProgress) =>
          registry.pushSnapshot(name, reference, { ...flags, signal, onProgress }),
        );
        output.print(pushed, () => pushedText(pushed));
      }),
    );
}

export function addPullSnapshot(program: Command): void {
  program
    .command('pull-snapshot')
    .description(
      'Pull a snapshot from an OCI registry. Data that local templates already hold is not fetched.',
    )
    .argument('<reference>', REFERENCE)
    .option('--name <name>', "the snapshot's name (default: the last part of the reference's name)")
    .option('--sha256 <digest>', 'refuse a snapshot whose SHA256SUMS has another digest', parseDigest)
    .addOption(concurrency('fetch'))
    .addHelpText(
      'after',
      `
JSON: as "snapshot" has it without "strategies", and
  "digest", "downloadedBytes", "reusedBytes", "unchanged"

A pull that was interrupted goes on where it ended.

Example:
  microvm-rootfs pull-snapshot registry.example/moves/vm-1:7 --name before-move
  microvm-rootfs restore before-move vm-1`,
    )
    .action((reference: string, { sha256, ...flags }: PullFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const pulled = await session.during(`pulling ${reference}`, (onProgress) =>
          registry.pullSnapshot(reference, {
            ...flags,
            ...(sha256 === undefined ? {} : { expectedSha256: sha256 }),
            signal,
            onProgress,
          }),
        );
        output.print(pulled, () => pulledText(pulled));
      }),
    );
}

function pulledText(pulled: PulledSnapshot): string {
  const { digest, unchanged, downloadedBytes, reusedBytes } = pulled;
  const facts = details({
    Digest: digest,
    Fetched: unchanged ? 'nothing: the snapshot is here already' : formatSize(downloadedBytes),
    Reused: unchanged ? undefined : formatSize(reusedBytes),
  });
  return `${facts}\n\n${snapshotText(pulled)}`;
}
