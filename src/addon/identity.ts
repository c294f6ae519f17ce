/** A file in a certain state, for which a digest is valid. Times are nanoseconds since the epoch. */
export interface Identity {
  readonly device: bigint;
  readonly inode: bigint;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  /**
   * Of a file that this process has linked or unlinked: the ctime that the kernel reports. `ctimeNs` is then the one
   * from before (native/system/own_links.h).
   */
  readonly linkedCtimeNs?: bigint;
  readonly links: number;
  /** The mount that it was reached by; 0n where the kernel does not tell (before Linux 6.8). */
  readonly mount: bigint;
}

export function sameFile(a: Identity, b: Identity): boolean {
  return a.inode === b.inode && a.device === b.device;
}

/**
 * For files that were not open all the time: ext4 gives the inode of a removed file to the next new one, so after two
 * grows an image can have its old inode number again.
 */
export function sameImage(a: Identity, b: Identity): boolean {
  return sameFile(a, b) && a.sizeBytes === b.sizeBytes;
}

/**
 * The same file, and nothing about it has changed. Of a folder: no name in it was made, removed or given another file.
 */
export function identical(a: Identity, b: Identity): boolean {
  return sameImage(a, b) && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs && a.links === b.links;
}

/**
 * Same file with the same contents. Making or removing a hardlink changes ctime and nothing else, so ctime counts only
 * while the file has one link on both occasions. (The addon compares by the same rule: native/system/identity.h.)
 */
export function sameState(a: Identity, b: Identity): boolean {
  return (
    sameFile(a, b) &&
    a.mount === b.mount &&
    a.sizeBytes === b.sizeBytes &&
    a.mtimeNs === b.mtimeNs &&
    (a.links !== 1 || b.links !== 1 || a.ctimeNs === b.ctimeNs)
  );
}

/** Whether it is one file that nobody has written to, though its links, owner or mode may have changed. */
export function sameContents(a: Identity, b: Identity): boolean {
  return sameImage(a, b) && a.mtimeNs === b.mtimeNs;
}
