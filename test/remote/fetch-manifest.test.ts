// What comes instead of a manifest: the error tells what it is, for which reference, and a mirror is passed over.
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { digestOf } from '../../src/remote/artifact.js';
import { fetchManifest } from '../../src/remote/fetch-manifest.js';
import { parseReference } from '../../src/remote/reference.js';
import { Task } from '../../src/system/task.js';
import { clientOf, serve } from '../fixtures/fake-registry.js';
import { rejection } from '../fixtures/rejection.js';

const task = new Task('asking', undefined);
const reference = parseReference('registry.example/a/b:1');
const manifest = JSON.stringify({ schemaVersion: 2, layers: [] });

const sourceOf = async (body: string | Buffer, isMirror = false) =>
  clientOf(await serve((_, response) => void response.end(body)), { isMirror });

test.each([
  ['\n <!DOCTYPE html><title>Sign in</title>', /web page.*sign-in/],
  [gzipSync(manifest), /compressed/],
  [JSON.stringify({ schemaVersion: 1, fsLayers: [] }), /schema 1/],
  ['nothing of the kind', /not JSON/],
])('%j is no manifest', async (body, told) => {
  const { message } = await rejection(
    fetchManifest(task, [await sourceOf(body)], reference, undefined),
    'ARTIFACT_INVALID',
  );
  expect(message).toMatch(told);
  expect(message).toContain('registry.example/a/b:1');
});

test('what a mirror sends instead of a manifest is passed over', async () => {
  const sources = [await sourceOf('<html>', true), await sourceOf(manifest)];
  expect((await fetchManifest(task, sources, reference, undefined)).bytes.toString()).toBe(manifest);
});

test('wrong bytes in place of a digest are asked for once more, and are then DIGEST_MISMATCH', async () => {
  const digest = digestOf(Buffer.from(manifest));
  for (const wrongTimes of [1, 2]) {
    let asked = 0;
    const host = await serve((_, response) => void response.end(++asked > wrongTimes ? manifest : '<html>'));
    const named = parseReference(`registry.example/a/b@${digest}`);
    const found = fetchManifest(task, [await clientOf(host)], named, undefined);
    if (wrongTimes === 1) expect(await found).toMatchObject({ digest });
    else await rejection(found, 'DIGEST_MISMATCH');
    expect(asked).toBe(2);
  }
});

const INDEX = 'application/vnd.oci.image.index.v1+json';
const DIGEST = digestOf(Buffer.from(manifest));
const indexOf = (...manifests: object[]) => JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests });
const entry = (platform?: string, digest = DIGEST) => {
  const [os, architecture, variant] = platform?.split('/') ?? [];
  return { digest, size: 1, ...(os === undefined ? {} : { platform: { os, architecture, variant } }) };
};

/** What a registry finds for `1`, whose other documents are named by their digests. */
async function resolved(document: string, platform: string, ...others: string[]) {
  const byName = new Map([document, manifest, ...others].map((text) => [digestOf(Buffer.from(text)), text]));
  const host = await serve(({ url = '' }, response) => {
    response.end(url.endsWith('/manifests/1') ? document : byName.get(url.replace(/.*\//, '')));
  });
  return fetchManifest(task, [await clientOf(host)], reference, platform);
}

/** An index in so many others, which are behind it. */
function nested(times: number): [string, ...string[]] {
  const documents: [string, ...string[]] = [indexOf(entry('linux/amd64'), entry('unknown/unknown'))];
  for (let i = 0; i < times; i++)
    documents.unshift(indexOf(entry('linux/amd64', digestOf(Buffer.from(documents[0])))));
  return documents;
}

test.each([
  ['an index without a type', JSON.stringify({ manifests: [entry('linux/amd64')] }), 'linux/amd64'],
  ['one entry without a platform', indexOf(entry()), 'linux/amd64'],
  ['no variant', indexOf(entry('linux/arm64')), 'linux/arm64/v8'],
  [
    'another entry with SHA-512',
    indexOf(entry('linux/arm', 'sha512:ab'), entry('linux/amd64')),
    'linux/amd64',
  ],
])('%s is resolved', async (_, document, platform) => {
  expect((await resolved(document, platform)).digest).toBe(DIGEST);
});

test('the variant that is asked for goes before none', async () => {
  const other = JSON.stringify({ schemaVersion: 2, layers: [1] });
  const exact = digestOf(Buffer.from(other));
  const document = indexOf(entry('linux/arm64'), entry('linux/arm64/v8', exact));
  expect((await resolved(document, 'linux/arm64/v8', other)).digest).toBe(exact);
});

test('an index in an index is resolved, as deep as images are nested', async () => {
  const [document, ...others] = nested(3);
  expect((await resolved(document, 'linux/amd64', ...others)).digest).toBe(DIGEST);
  const [deeper, ...below] = nested(4);
  const error = await rejection(resolved(deeper, 'linux/amd64', ...below), 'ARTIFACT_INVALID');
  expect(error.message).toContain('an index in more than 3 others');
});

test.each([
  [indexOf(entry('linux/arm64'), entry('unknown/unknown')), 'only linux/arm64: choose'],
  [indexOf(entry(), entry()), 'names no platform'],
  [indexOf(entry('linux/arm/v6')), 'only linux/arm/v6'],
  [indexOf(entry('linux/amd64', 'sha512:ab')), 'sha512:ab'],
])('%s has nothing that fits', async (document, told) => {
  const platform = document.includes('v6') ? 'linux/arm/v7' : 'linux/amd64';
  expect((await rejection(resolved(document, platform), 'ARTIFACT_INVALID')).message).toContain(told);
});
