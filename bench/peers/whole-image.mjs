// What people do without chunks: the image as one zstd blob in a registry, and skopeo.
import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { output, run } from '../command.mjs';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/**
 * @param {string} image
 * @param {string} host
 * @param {string} repository
 * @param {string} tag
 * @returns {Promise<string>} the hexadecimal digest of the blob
 */
export async function pushWhole(image, host, repository, tag) {
  const packed = `${image}.zst`;
  await run('zstd', ['-q', '-f', '-3', '-T0', image, '-o', packed]);
  const blob = await readFile(packed);
  await rm(packed);
  const base = `http://${host}/v2/${repository}`;
  const layer = await pushBlob(base, 'application/vnd.example.disk.raw+zstd', blob);
  const config = await pushBlob(base, 'application/vnd.oci.empty.v1+json', Buffer.from('{}'));
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [layer] });
  const url = `${base}/manifests/${tag}`;
  await accepted(fetch(url, { method: 'PUT', headers: { 'content-type': MANIFEST }, body: manifest }));
  return layer.digest.slice('sha256:'.length);
}

/**
 * skopeo fetches an artifact, and zstd makes the image of these blobs of it.
 * @param {string} reference
 * @param {readonly string[]} blobs their hexadecimal digests
 * @param {string} place a folder that is made
 */
export async function fetchWithSkopeo(reference, blobs, place) {
  await output('bash', [
    '-o',
    'pipefail',
    '-ec',
    `skopeo copy -q --src-tls-verify=false docker://${reference} dir:${place} && ` +
      `cd ${place} && cat ${blobs.join(' ')} | zstd -dcq > image`,
  ]);
}

/**
 * The digests of an artifact's packs, in order.
 * @param {string} host
 * @param {string} repository
 * @param {string} tag
 */
export async function packsOf(host, repository, tag) {
  const answer = await fetch(`http://${host}/v2/${repository}/manifests/${tag}`, {
    headers: { accept: MANIFEST },
  });
  const { layers } = /** @type {{ layers: { mediaType: string, digest: string }[] }} */ (await answer.json());
  return layers
    .filter(({ mediaType }) => mediaType.endsWith('+zstd'))
    .map(({ digest }) => digest.slice('sha256:'.length));
}

/**
 * @param {string} base
 * @param {string} mediaType
 * @param {Buffer} content
 */
async function pushBlob(base, mediaType, content) {
  const digest = `sha256:${createHash('sha256').update(content).digest('hex')}`;
  const { headers } = await accepted(fetch(`${base}/blobs/uploads/`, { method: 'POST' }));
  const url = new URL(headers.get('location') ?? '', base);
  url.searchParams.set('digest', digest);
  await accepted(
    fetch(url, {
      method: 'PUT',
      headers: { 'content-type': 'application/octet-stream' },
      body: new Uint8Array(content),
    }),
  );
  return { mediaType, digest, size: content.length };
}

/** @param {Promise<Response>} asked */
async function accepted(asked) {
  const answer = await asked;
  if (!answer.ok) throw new Error(`${answer.url}: status ${answer.status}`);
  await answer.arrayBuffer();
  return answer;
}
