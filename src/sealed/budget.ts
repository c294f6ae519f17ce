// Limits the space of sealed images. Images at their template's own size are reflinks of it, or its only copy here, so
// they stay as long as the template does. Grown and packed images can be made again: the least recently used are
// removed when there are too many or they hold too much.

export interface Budget {
  readonly images: number;
  readonly bytes: number;
}

export interface Candidate {
  readonly key: string;
  readonly ownBytes: number;
  readonly lastUsedMs: number;
}

/** The keys to remove, least recently used first, never `keep`. */
export function overBudget(candidates: readonly Candidate[], budget: Budget, keep: string): string[] {
  let images = candidates.length;
  let bytes = candidates.reduce((sum, { ownBytes }) => sum + ownBytes, 0);
  const gone: string[] = [];
  for (const { key, ownBytes } of [...candidates].sort((a, b) => a.lastUsedMs - b.lastUsedMs)) {
    if (images <= budget.images && bytes <= budget.bytes) break;
    if (key === keep) continue;
    gone.push(key);
    images--;
    bytes -= ownBytes;
  }
  return gone;
}
