// Bytes in pieces give the same bytes and digests as if they were joined, and hold nobody up.
import { describe, expect, test } from 'vitest';
import { blobOf } from '../../src/remote/artifact.js';
import { ByteQueue, blobOfPieces } from '../../src/remote/byte-queue.js';
import { pattern } from '../fixtures/images.js';

const MiB = 1024 * 1024;

describe('bytes in pieces', () => {
  test.each([1, 7, 64, 1000])('of %i bytes are cut at any place', (length) => {
    const content = pattern(1000, 1);
    const queue = new ByteQueue();
    for (let at = 0; at < content.length; at += length) queue.add(content.subarray(at, at + length));
    let at = 0;
    for (const count of [0, 1, 6, 57, 64, 128, 744]) {
      expect(Buffer.concat(queue.take(count))).toEqual(content.subarray(at, at + count));
      at += count;
    }
    expect(at).toBe(content.length);
  });

  test('have the digest of all, and timers run while it is made', async () => {
    const pieces = Array.from({ length: 128 }, (_, i) => pattern(64 * 1024, i + 1));
    let turns = 0;
    const turn = () => {
      turns++;
      next = setImmediate(turn);
    };
    let next = setImmediate(turn);
    const blob = await blobOfPieces(pieces);
    clearImmediate(next);
    expect(blob).toEqual(blobOf(Buffer.concat(pieces)));
    expect(turns).toBeGreaterThan((8 * MiB) / (512 * 1024) - 3);
  });
});
