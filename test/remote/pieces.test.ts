// Bytes in pieces have the same digest as if they were joined, and hold nobody up.
import { describe, expect, test } from 'vitest';
import { blobOf } from '../../src/remote/artifact.js';
import { blobOfPieces } from '../../src/remote/pieces.js';
import { pattern } from '../fixtures/images.js';

const MiB = 1024 * 1024;

describe('bytes in pieces', () => {
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
