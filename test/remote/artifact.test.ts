// Manifests: the same image gives the same bytes, and those of others are read for what is needed of them.
import { expect, test } from 'vitest';
import {
  ANNOTATION,
  artifactOf,
  blobOf,
  contentOf,
  digestOf,
  formatArtifact,
  indexOf,
  type Layer,
  MANIFEST_TYPE,
  parseManifest,
} from '../../src/remote/artifact.js';
import { sha256 } from '../fixtures/files.js';
import { rejection, thrown } from '../fixtures/rejection.js';

const DIGEST = `sha256:${sha256('layer')}`;
const LAYER: Layer = { mediaType: 'a/b', digest: DIGEST, size: 5, annotations: {} };

const manifest = (value: unknown) =>
  parseManifest(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), 'it');

const artifact = async (change: object = {}) => artifactOf(await manifest({ layers: [LAYER], ...change }));
const layered = (change: object) => artifact({ layers: [{ ...LAYER, ...change }] });

test('what is written is read back, and written again to the same bytes', async () => {
  const layers = [LAYER, { ...LAYER, size: 0, annotations: { x: 'y', ü: '€' } }];
  const written = await formatArtifact('type/x', layers, { b: '1', a: '2' });
  expect(written.mediaType).toBe(MANIFEST_TYPE);
  const read = await artifactOf(await parseManifest(written.bytes, 'it'));
  expect(read).toEqual({
    artifactType: 'type/x',
    configType: 'application/vnd.oci.empty.v1+json',
    layers,
    annotations: { b: '1', a: '2' },
  });
  const again = await formatArtifact(read.artifactType, read.layers, read.annotations);
  expect(again.bytes.toString()).toBe(written.bytes.toString());
  expect(blobOf(Buffer.from('layer'))).toEqual({ digest: DIGEST, size: 5 });
  expect(digestOf(Buffer.alloc(0))).toBe(`sha256:${sha256('')}`);
});

test('a manifest of another program is read, without what is no text', async () => {
  expect(
    await artifact({
      artifactType: 7,
      config: { mediaType: 'config/type' },
      annotations: { a: 1, b: null, c: 'd' },
    }),
  ).toEqual({
    artifactType: 'config/type',
    configType: 'config/type',
    layers: [LAYER],
    annotations: { c: 'd' },
  });
  const other = { mediaType: null, annotations: null, urls: ['http://elsewhere'] };
  expect((await layered(other)).layers).toEqual([{ ...LAYER, mediaType: '' }]);
  const { annotations } = await artifactOf(
    await manifest(`{"layers":[${JSON.stringify(LAYER)}],"annotations":{"__proto__":"x","constructor":"y"}}`),
  );
  expect(Object.entries(annotations)).toEqual([
    ['__proto__', 'x'],
    ['constructor', 'y'],
  ]);
  expect(Object.getPrototypeOf(annotations)).toBe(Object.prototype);
});

test.each([
  '',
  '{',
  'null',
  '[]',
  '"x"',
  '{}',
  '{"layers":{}}',
  '{"layers":[]}',
  '{"layers":[null]}',
  '{"layers":[[]]}',
  '{"layers":["x"]}',
])('%j is no manifest', async (text) => {
  await rejection(manifest(text).then(artifactOf), 'ARTIFACT_INVALID');
});

test.each<object>([
  { digest: undefined },
  { digest: 'sha512:abc' },
  { digest: DIGEST.toUpperCase() },
  { digest: [DIGEST] },
  { digest: `${DIGEST}/../x` },
  { size: undefined },
  { size: '5' },
  { size: -1 },
  { size: 1.5 },
  { size: 2 ** 50 + 1 },
  { size: 1e300 },
  { annotations: [] },
  { annotations: 'x' },
])('a layer with %j is refused', async (change) => {
  await rejection(layered(change), 'ARTIFACT_INVALID');
});

test('a manifest may have 16,000 layers and no more, and a blob 2^50 bytes', async () => {
  const withLayers = (count: number) => artifact({ layers: Array.from({ length: count }, () => LAYER) });
  expect((await withLayers(16_000)).layers).toHaveLength(16_000);
  await rejection(withLayers(16_001), 'ARTIFACT_INVALID');
  expect((await layered({ size: 2 ** 50 })).layers[0]?.size).toBe(2 ** 50);
});

test('an index is told from a manifest by its own type, else by that of the answer', async () => {
  const INDEX = 'application/vnd.oci.image.index.v1+json';
  const LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
  const manifests = [
    { digest: DIGEST, size: 1, platform: { os: 'linux', architecture: 'arm64', variant: '' } },
  ];
  const entry = { digest: DIGEST, os: 'linux', architecture: 'arm64', variant: undefined };
  const indexIn = async (value: object, mediaType = MANIFEST_TYPE) =>
    indexOf(await manifest(value), mediaType);
  expect(await indexIn({ mediaType: INDEX, manifests }, 'text/html')).toEqual([entry]);
  for (const type of [INDEX, LIST]) expect(await indexIn({ manifests }, type)).toEqual([entry]);
  expect(await indexIn({ mediaType: MANIFEST_TYPE, manifests }, INDEX)).toBeUndefined();
  expect(await indexIn({ manifests, layers: [] })).toBeUndefined();
  // With no type of its own, and that of a file server.
  for (const type of ['application/json', '']) expect(await indexIn({ manifests }, type)).toEqual([entry]);
  expect(await indexIn({ manifests: [{ digest: DIGEST, size: 1, platform: null }] }, INDEX)).toEqual([
    { ...entry, os: '', architecture: '' },
  ]);
  for (const bad of [undefined, {}, [null], [{ digest: DIGEST, size: 1, platform: 'linux' }]])
    await rejection(indexIn({ manifests: bad }, INDEX), 'ARTIFACT_INVALID');
});

test.each<readonly [Record<string, string>, boolean]>([
  [{}, false],
  [{ [ANNOTATION.sha256]: sha256('x') }, false],
  [{ [ANNOTATION.sizeBytes]: '1' }, false],
  [{ [ANNOTATION.sha256]: sha256('x'), [ANNOTATION.sizeBytes]: '4096' }, true],
  [{ [ANNOTATION.sha256]: sha256('x').toUpperCase(), [ANNOTATION.sizeBytes]: '4096' }, false],
  ...['0', '-1', '1.5', '', 'x', '9007199254740992', 'Infinity', '1e3', '0x10', ' 16 '].map(
    (size) => [{ [ANNOTATION.sha256]: sha256('x'), [ANNOTATION.sizeBytes]: size }, false] as const,
  ),
])('annotations %j name an image: %s', (annotations, valid) => {
  const read = () => contentOf({ annotations });
  if (valid) expect(read()).toEqual({ sha256: sha256('x'), sizeBytes: 4096 });
  else thrown(read, 'ARTIFACT_INVALID');
});
