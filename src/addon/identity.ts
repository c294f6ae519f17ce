/** Which file, in which state: what a digest is valid for. Times are nanoseconds since the epoch. */
export interface Identity {
  readonly device: bigint;
  readonly inode: bigint;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly links: number;
}

export function sameFile(a: Identity, b: Identity): boolean {
  return a.inode === b.inode && a.device === b.device;
}

/**
 * Of files that were not open all the while: ext4 gives the inode of a file that is gone to the next one that is made, so after two grows of an
 * image the number alone would be the same again.
 */
export function sameImage(a: Identity, b: Identity): boolean {
  return sameFile(a, b) && a.sizeBytes === b.sizeBytes;
}

/**
 * Same file with the same contents. Making or removing a hardlink changes ctime and nothing else, so ctime counts only
 * while the file has one link on both occasions. (The addon compares by the same rule: native/system/identity.h.)
 */
export function sameState(a: Identity, b: Identity): boolean {
  return (
    sameFile(a, b) &&
    a.sizeBytes === b.sizeBytes &&
    a.mtimeNs === b.mtimeNs &&
    (a.links !== 1 || b.links !== 1 || a.ctimeNs === b.ctimeNs)
  );
}
