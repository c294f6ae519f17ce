import { type Command, InvalidArgumentError, Option } from 'commander';
import type { PulledStack, PushedSnapshot, PushedStack, RemoteArtifact } from '../../index.js';
import { details } from '../output.js';
import { inSession } from '../session.js';
import { formatSize } from '../sizes.js';
import { formatTime } from '../times.js';
import { parseDigest, stackFacts } from './publish.js';

export interface PushFlags {
  readonly base?: string;
  readonly level?: number;
  readonly concurrency?: number;
}

interface PullFlags {
  readonly name?: string;
  readonly replace?: boolean;
  readonly sha256?: string;
  readonly platform?: string;
  readonly concurrency?: number;
}

export const REFERENCE = 'HOST/NAME:TAG or HOST/NAME@sha256:…';

export function addPush(program: Command): void {
  program
    .command('push')
    .description('Push a template to an OCI registry; send only what the registry lacks.')
    .argument('<name>', 'the template')
    .argument('<reference>', 'where to: HOST/NAME:TAG')
    .option(
      '--base <reference>',
      'the previous version in the same registry: data that it has is not compressed again',
    )
    .addOption(level())
    .addOption(concurrency('send'))
    .addHelpText(
      'after',
      `
JSON: { "reference", "digest", "sha256", "sizeBytes", "uploadedBytes", "reusedBytes" }

Logins are those of docker, podman, skopeo and oras. A registry without TLS, or with a certificate
authority of its own, is set under "registries" in the file of settings (--config).

Example:
  microvm-rootfs push debian-12 registry.example/templates/debian-12:2026-11`,
    )
    .action((name: string, reference: string, flags: PushFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const pushed = await session.during(`pushing ${name}`, (onProgress) =>
          registry.pushStack(name, reference, { ...flags, signal, onProgress }),
        );
        output.print(pushed, () => pushedText(pushed));
      }),
    );
}

export function addPull(program: Command): void {
  program
    .command('pull')
    .description('Pull a template from an OCI registry; fetch only what this host lacks.')
    .argument('<reference>', REFERENCE)
    .option('--name <name>', "the template's name (default: the last part of the reference's name)")
    .option('--replace', 'replace the template of that name')
    .option('--sha256 <digest>', 'refuse an image with another digest', parseDigest)
    .option('--platform <platform>', 'the platform to pull, if there are several, such as linux/arm64')
    .addOption(concurrency('fetch'))
    .addHelpText(
      'after',
      `
JSON: as "publish" has it, and "digest", "downloadedBytes", "reusedBytes", "unchanged"

A pull that was interrupted goes on where it ended. An artifact of another tool is taken too, if its
only layer is a disk: raw, compressed, or a qcow2.

Example:
  microvm-rootfs pull registry.example/templates/debian-12:2026-11 --replace`,
    )
    .action((reference: string, { sha256, ...flags }: PullFlags, command: Command) =>
      inSession(command, async (session) => {
        const { registry, output, signal } = session;
        const pulled = await session.during(`pulling ${reference}`, (onProgress) =>
          registry.pullStack(reference, {
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

export function addRemote(program: Command): void {
  program
    .command('remote')
    .description('Show what a reference names, and how much a pull of it would fetch.')
    .argument('<reference>', REFERENCE)
    .option('--platform <platform>', 'the platform to show, if there are several, such as linux/arm64')
    .addHelpText(
      'after',
      `
JSON: { "reference", "digest", "artifactType", "storedBytes", "sha256"?, "sizeBytes"?, "missingBytes"?,
  "snapshot"?: { "vmId", "stack"?, "createdAt", "files": [{ "name", "sizeBytes", "sha256" }] } }

Example:
  microvm-rootfs remote registry.example/templates/debian-12:2026-11`,
    )
    .action((reference: string, flags: Pick<PullFlags, 'platform'>, command: Command) =>
      inSession(command, async ({ registry, output, signal }) => {
        const artifact = await registry.inspectReference(reference, { ...flags, signal });
        output.print(artifact, () => artifactText(artifact));
      }),
    );
}

export function pushedText({
  reference,
  digest,
  sha256,
  sizeBytes,
  uploadedBytes,
  reusedBytes,
}: PushedStack | PushedSnapshot): string {
  return details({
    Reference: reference,
    Digest: digest,
    Size: formatSize(sizeBytes),
    Sent: formatSize(uploadedBytes),
    'There already': formatSize(reusedBytes),
    'SHA-256': sha256,
  });
}

function pulledText(pulled: PulledStack): string {
  const { digest, unchanged, downloadedBytes, reusedBytes } = pulled;
  return details({
    ...stackFacts(pulled),
    Digest: digest,
    Fetched: unchanged ? 'nothing: the template has this image already' : formatSize(downloadedBytes),
    Reused: unchanged ? undefined : formatSize(reusedBytes),
  });
}

function artifactText(artifact: RemoteArtifact): string {
  const { reference, digest, artifactType, storedBytes, sha256, sizeBytes, missingBytes, snapshot } =
    artifact;
  return details({
    Reference: reference,
    Digest: digest,
    Type: artifactType || 'not known',
    Stored: formatSize(storedBytes),
    Size: sizeBytes === undefined ? undefined : formatSize(sizeBytes),
    'To fetch': missingBytes === undefined ? undefined : `about ${formatSize(missingBytes)}`,
    'SHA-256': sha256,
    VM: snapshot?.vmId,
    Stack: snapshot?.stack,
    Created: snapshot && formatTime(snapshot.createdAt),
    Files: snapshot?.files.map(({ name }) => name).join(', '),
  });
}

export function level(): Option {
  return new Option('--level <number>', 'the compression level of zstd, 1 to 22 (default: 3)').argParser(
    countUpTo(22),
  );
}

export function concurrency(what: 'send' | 'fetch'): Option {
  const most = what === 'fetch' ? '; more than 4 make no difference' : '';
  const about = `how many packs to ${what} at once, 1 to 64 (default: 8${most})`;
  return new Option('--concurrency <number>', about).argParser(countUpTo(64));
}

function countUpTo(limit: number): (text: string) => number {
  return (text) => {
    const count = Number(text);
    if (/^[1-9]\d*$/.test(text) && count <= limit) return count;
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${limit}.`);
  };
}
