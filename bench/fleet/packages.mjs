// The files of this machine's own Debian packages, as the content of templates, and an upgrade of some of them.
import { chmodSync, lstatSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { seededRandom } from '../alternate.mjs';
import { run } from '../command.mjs';

/** @typedef {{ bytes: number, files: string[], links: string[] }} Package */

const LISTS = '/var/lib/dpkg/info';
/** One package is no more than this share of what is asked for. */
const LARGEST_SHARE = 0.1;

/**
 * Packages in an order that looks random and is always the same, up to so many bytes of their files below `/usr`.
 * @param {number} dataBytes
 * @returns {Package[]}
 */
export function installedPackages(dataBytes) {
  const random = seededRandom(4);
  const order = readdirSync(LISTS)
    .filter((name) => name.endsWith('.list'))
    .sort()
    .map((name) => ({ name, key: random() }))
    .sort((a, b) => a.key - b.key);
  return upTo(
    dataBytes,
    lazily(
      order.map(({ name }) => name),
      readPackage,
    ),
  );
}

/**
 * The first of these packages, up to so many bytes.
 * @param {number} bytes
 * @param {Iterable<Package>} packages
 */
export function upTo(bytes, packages) {
  const chosen = [];
  let left = bytes;
  for (const each of packages) {
    if (each.bytes > Math.min(left, bytes * LARGEST_SHARE)) continue;
    chosen.push(each);
    left -= each.bytes;
    if (left < bytes / 100) break;
  }
  return chosen;
}

/** @param {Iterable<Package>} packages */
export function bytesOf(packages) {
  let sum = 0;
  for (const { bytes } of packages) sum += bytes;
  return sum;
}

/**
 * @param {readonly Package[]} packages
 * @param {string} tree where to put them
 */
export async function copyPackages(packages, tree) {
  const list = `${tree}.list`;
  const paths = packages.flatMap(({ files, links }) => [...files, ...links]);
  await writeFile(list, paths.map((path) => path.slice(1)).join('\n'));
  const pack = `tar -C / --no-recursion --files-from=${list} -cf - | tar -C ${tree} -xf -`;
  await run('bash', ['-o', 'pipefail', '-ec', pack]);
}

/**
 * Replaces every file of these packages as dpkg does: the new one beside the old, then a rename. It has other bytes
 * throughout, which compress as those of the old one do, and a little more of them.
 * @param {readonly Package[]} packages
 * @param {string} tree
 */
export async function upgradePackages(packages, tree) {
  for (const { files } of packages) {
    for (const file of files) {
      const path = join(tree, file);
      const content = readFileSync(path);
      for (let i = 0; i < content.length; i++) content[i] = /** @type {number} */ (content[i]) ^ 0x5a;
      writeFileSync(`${path}.dpkg-new`, Buffer.concat([content, content.subarray(0, 100)]));
      chmodSync(`${path}.dpkg-new`, lstatSync(path).mode);
    }
    for (const file of files) renameSync(`${join(tree, file)}.dpkg-new`, join(tree, file));
    await run('sync', ['-f', tree]);
  }
}

/**
 * @template From, To
 * @param {From[]} items
 * @param {(item: From) => To} make
 */
function* lazily(items, make) {
  for (const item of items) yield make(item);
}

/**
 * @param {string} name of its list
 * @returns {Package}
 */
function readPackage(name) {
  const found = { bytes: 0, files: /** @type {string[]} */ ([]), links: /** @type {string[]} */ ([]) };
  for (const line of readFileSync(join(LISTS, name), 'utf8').split('\n')) {
    // Debian's lists name files in /lib, which is a link.
    const path = line.replace(/^\/(?=(bin|sbin|lib)\/)/, '/usr/');
    const stats = path.startsWith('/usr/') ? lstatSync(path, { throwIfNoEntry: false }) : undefined;
    if (stats?.isSymbolicLink()) found.links.push(path);
    if (!stats?.isFile()) continue;
    found.files.push(path);
    found.bytes += stats.size;
  }
  return found;
}
