// Manifests: the same image gives the same bytes, and those of others are read for what is needed of them.
import { expect, test } from 'vitest';
import {
  ANNOTATION,
  blobOf,
  contentOf,
  digestOf,
  formatArtifact,
  type Layer,
  MANIFEST_TYPE,
  parseArtifact,
  parseIndex,
} from '../../src/remote/artifact.js';
import { sha256 } from '../fixtures/files.js';
import { thrown } from '../fixtures/rejection.js';

const DIGEST = `sha256:${sha256('layer')}`;
const LAYER: Layer = { mediaType: 'a/b', digest: DIGEST, size: 5, annotations: {} };

const manifest = (value: unknown, mediaType = MANIFEST_TYPE) => ({
  bytes: Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)),
  mediaType,
});

const artifact = (change: object = {}) => parseArtifact(manifest({ layers: [LAYER], ...change }));
const layered = (change: object) => artifact({ layers: [{ ...LAYER, ...change }] });

test('what is written is read back, and written again to the same bytes', () => {
  const layers = [LAYER, { ...LAYER, size: 0, annotations: { x: 'y', ü: '€' } }];
  const written = formatArtifact('type/x', layers, { b: '1', a: '2' });
  expect(written.mediaType).toBe(MANIFEST_TYPE);
  const read = parseArtifact(written);
  expect(read).toEqual({
    artifactType: 'type/x',
    configType: 'application/vnd.oci.empty.v1+json',
    layers,
    annotations: { b: '1', a: '2' },
  });
  expect(formatArtifact(read.artifactType, read.layers, read.annotations).bytes.equals(written.bytes)).toBe(
    true,
  );
  expect(blobOf(Buffer.from('layer'))).toEqual({ digest: DIGEST, size: 5 });
  expect(digestOf(Buffer.alloc(0))).toBe(`sha256:${sha256('')}`);
});

test('a manifest of another program is read, without what is no text', () => {
  expect(
    artifact({
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
  expect(layered({ mediaType: null, annotations: null, urls: ['http://elsewhere'] }).layers).toEqual([
    { ...LAYER, mediaType: '' },
  ]);
  const { annotations } = parseArtifact(
    manifest(`{"layers":[${JSON.stringify(LAYER)}],"annotations":{"__proto__":"x","constructor":"y"}}`),
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
])('%j is no manifest', (text) => {
  thrown(() => parseArtifact(manifest(text)), 'ARTIFACT_INVALID');
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
])('a layer with %j is refused', (change) => {
  thrown(() => layered(change), 'ARTIFACT_INVALID');
});

test('a manifest may have 16,000 layers and no more, and a blob 2^50 bytes', () => {
  const layers = (count: number) =>
    artifact({ layers: Array.from({ length: count }, () => LAYER) }).layers.length;
  expect(layers(16_000)).toBe(16_000);
  thrown(() => layers(16_001), 'ARTIFACT_INVALID');
  expect(layered({ size: 2 ** 50 }).layers[0]?.size).toBe(2 ** 50);
});

test('an index is told from a manifest by its own type, else by that of the answer', () => {
  const INDEX = 'application/vnd.oci.image.index.v1+json';
  const LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
  const manifests = [
    { digest: DIGEST, size: 1, platform: { os: 'linux', architecture: 'arm64', variant: '' } },
  ];
  const entry = { digest: DIGEST, os: 'linux', architecture: 'arm64', variant: undefined };
  expect(parseIndex(manifest({ mediaType: INDEX, manifests }, 'text/html'))).toEqual([entry]);
  for (const type of [INDEX, LIST]) expect(parseIndex(manifest({ manifests }, type))).toEqual([entry]);
  expect(parseIndex(manifest({ mediaType: MANIFEST_TYPE, manifests }, INDEX))).toBeUndefined();
  expect(parseIndex(manifest({ manifests, layers: [] }))).toBeUndefined();
  // With no type of its own, and that of a file server.
  for (const type of ['application/json', ''])
    expect(parseIndex(manifest({ manifests }, type))).toEqual([entry]);
  expect(parseIndex(manifest({ manifests: [{ digest: DIGEST, size: 1, platform: null }] }, INDEX))).toEqual([
    { ...entry, os: '', architecture: '' },
  ]);
  for (const bad of [undefined, {}, [null], [{ digest: DIGEST, size: 1, platform: 'linux' }]])
    thrown(() => parseIndex(manifest({ manifests: bad }, INDEX)), 'ARTIFACT_INVALID');
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
