// What comes instead of a manifest: the error tells what it is, for which reference, and a mirror is passed over.
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
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
