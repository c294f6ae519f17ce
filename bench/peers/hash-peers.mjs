// Ways to a file's SHA-256.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { run } from '../command.mjs';
import { timeNs } from '../timing.mjs';

/** @typedef {import('../alternate.mjs').Contestant} Contestant */

/** @type {Record<string, { does: string, hash: (path: string) => Promise<unknown> }>} */
const WAYS = {
  'openssl dgst': {
    does: 'openssl dgst -sha256 FILE, spawned',
    hash: (path) => run('openssl', ['dgst', '-sha256', path]),
  },
  sha256sum: { does: 'sha256sum FILE, spawned', hash: (path) => run('sha256sum', [path]) },
  'node:crypto stream': {
    does: "pipeline(createReadStream(file), createHash('sha256')), the stream's own chunk size",
    async hash(path) {
      const hash = createHash('sha256');
      await pipeline(createReadStream(path), hash);
      return hash.digest('hex');
    },
  },
};

/**
 * @param {string} path
 * @returns {Contestant[]}
 */
export function hashPeers(path) {
  return Object.entries(WAYS).map(([name, { does, hash }]) => ({
    name,
    does,
    sample: () => timeNs(() => hash(path)),
  }));
}
