export const BLOCK_BYTES = 4096;

export const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);

/** Of a block of at most 4 KiB. */
export function isZeroBlock(block: Buffer): boolean {
  return block.equals(block.length === BLOCK_BYTES ? ZERO_BLOCK : ZERO_BLOCK.subarray(0, block.length));
}
