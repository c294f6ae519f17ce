// Reads and writes a snapshot's manifest. Digests are in the format of `sha256sum`, so `sha256sum -c` works. A comment
// holds everything else.
import { isWellFormed, NAME_BYTES_LIMIT } from '../system/arguments.js';
import { isSha256 } from '../system/sha256.js';

/** The name of the manifest in a snapshot's folder. */
export const SNAPSHOT_MANIFEST_FILE = 'SHA256SUMS';

// Far more than any snapshot needs.
export const SNAPSHOT_MANIFEST_BYTES_LIMIT = 1024 * 1024;

/** What a file adds beside its name, twice: a digest, a length, and what separates them. */
const LINE_BYTES = 128;
/** At most: a VM's id, a stack's name, a digest and a date. */
const HEAD_BYTES = 8192;

const HEAD = '# microvm-rootfs snapshot ';
const VERSION = 1;

export interface SnapshotFile {
  readonly name: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

export interface SnapshotRecord {
  /** The VM's id, as passed to `cloneForVm`. */
  readonly vmId: string;
  readonly stack: string | undefined;
  /** The digest of the template that the disk descends from. */
  readonly sourceSha256: string;
  readonly sizeStamp: number | undefined;
  /** ISO 8601. */
  readonly createdAt: string;
  /** The disk first. */
  readonly files: readonly SnapshotFile[];
}

/** What a snapshot holds. */
export interface SnapshotFacts {
  /** The id of the VM it was taken of, as passed to `cloneForVm`. */
  readonly vmId: string;
  /** The stack that the disk descends from, if known. */
  readonly stack: string | undefined;
  readonly createdAt: Date;
  /** The disk, `rootfs.ext4`, first. */
  readonly files: readonly SnapshotFile[];
}

/** A manifest, as it is in its file and what it says. */
export interface SnapshotManifest {
  readonly text: string;
  readonly record: SnapshotRecord;
}

/** The first of these names that a snapshot cannot have for a file beside the others. */
export function unfitName(names: readonly string[]): string | undefined {
  const seen = new Set<string>([SNAPSHOT_MANIFEST_FILE]);
  return names.find((name) => {
    const isTaken = seen.has(name);
    seen.add(name);
    return isTaken || !isPlainName(name);
  });
}

/** Whether a manifest with these names can be read again, whatever else it says. */
export function fitInManifest(names: readonly string[]): boolean {
  const bytes = names.reduce(
    (sum, name) => sum + Buffer.byteLength(name) + Buffer.byteLength(JSON.stringify(name)) + LINE_BYTES,
    HEAD_BYTES,
  );
  return bytes <= SNAPSHOT_MANIFEST_BYTES_LIMIT;
}

/** Whether the name is valid for a file, and `sha256sum` writes it without escaping. */
export function isPlainName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is refused
  const isPlain = /^[^./\\\u0000-\u001f\u007f-\u009f][^/\\\u0000-\u001f\u007f-\u009f]*$/.test(name);
  return isPlain && isWellFormed(name) && Buffer.byteLength(name) <= NAME_BYTES_LIMIT;
}

export function formatManifest({ files, ...rest }: SnapshotRecord): string {
  const sizes = Object.fromEntries(files.map(({ name, sizeBytes }) => [name, sizeBytes]));
  const head = JSON.stringify({ version: VERSION, ...rest, sizes });
  return [`${HEAD}${head}`, ...files.map(({ name, sha256 }) => `${sha256}  ${name}`), ''].join('\n');
}

/** Undefined if {@link formatManifest} did not write it. */
export function parseManifest(text: string): SnapshotRecord | undefined {
  const [head = '', ...lines] = text.split('\n');
  if (!head.startsWith(HEAD) || lines.pop() !== '') return undefined;
  try {
    const { version, sizes, vmId, stack, sourceSha256, sizeStamp, createdAt } = JSON.parse(
      head.slice(HEAD.length),
    );
    const files: SnapshotFile[] = [];
    for (const line of lines) {
      const [, sha256, name] = /^([0-9a-f]{64}) {2}(.+)$/s.exec(line) ?? [];
      if (sha256 === undefined || name === undefined || !isPlainName(name)) return undefined;
      const sizeBytes = Object.hasOwn(sizes, name) ? sizes[name] : undefined;
      if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) return undefined;
      files.push({ name, sizeBytes, sha256 });
    }
    const isWhole =
      version === VERSION &&
      typeof vmId === 'string' &&
      (stack === undefined || typeof stack === 'string') &&
      isSha256(sourceSha256) &&
      (sizeStamp === undefined || isSizeOf(files[0], sizeStamp)) &&
      !Number.isNaN(Date.parse(createdAt)) &&
      files.length > 0 &&
      // A manifest that was cut off after a line lists fewer files.
      files.length === Object.keys(sizes).length;
    return isWhole ? { vmId, stack, sourceSha256, sizeStamp, createdAt, files } : undefined;
  } catch {
    return undefined;
  }
}

/** A slot that is shorter than its size stamp is torn. A VMM may have made it longer. */
function isSizeOf(disk: SnapshotFile | undefined, sizeStamp: unknown): boolean {
  return (
    Number.isSafeInteger(sizeStamp) &&
    (sizeStamp as number) > 0 &&
    (sizeStamp as number) <= (disk?.sizeBytes ?? 0)
  );
}

/** The sum of the sizes of its files. */
export function totalBytes({
  files,
}: {
  readonly files: readonly Pick<SnapshotFile, 'sizeBytes'>[];
}): number {
  return files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

export function factsOf({ vmId, stack, createdAt, files }: SnapshotRecord): SnapshotFacts {
  return { vmId, stack, createdAt: new Date(createdAt), files };
}
