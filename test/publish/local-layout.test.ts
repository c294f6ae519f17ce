// What is wrong with `oci:DIR` is blamed on the layout, and the tags to choose from are told.
import { execFile, execFileSync } from 'node:child_process';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeEach, describe, expect, test } from 'vitest';
import { fetchImage } from '../../src/publish/fetch-image.js';
import { parsePlatform } from '../../src/publish/platform.js';
import { Task } from '../../src/system/task.js';
import { Host } from '../fixtures/host.js';
import { readInside } from '../fixtures/images.js';
import { makeLayout } from '../fixtures/oci-layout.js';
import { rejection } from '../fixtures/rejection.js';
import { makeTar } from '../fixtures/tars.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const execute = promisify(execFile);
const missing = lacksRoot() ?? lacks('skopeo', 'umoci');
const GUEST = process.arch === 'arm64' ? 'arm64' : 'amd64';

describe.skipIf(missing !== undefined)(`an OCI layout${missing === undefined ? '' : ` (${missing})`}`, () => {
  let host: Host;
  let layout: string;
  const refused = async (code: string, tag = '') => {
    const { message } = await rejection(host.registry.publishStack('new', `oci:${layout}${tag}`), code);
    expect(message).not.toMatch(/network|registry runs/);
    expect(await host.stagedInCatalog()).toEqual([]);
    return message;
  };

  beforeEach(async () => {
    host = await Host.in();
    layout = join(host.root, 'layout');
  });

  test('with several images needs a tag, and names those that it has', async () => {
    const images = ['v1', 'v2'].map((tag) => ({ layers: ['touch a'], architecture: GUEST, tag }));
    await makeLayout(layout, images);
    expect(await refused('REFERENCE_INVALID')).toContain('it has v1, v2');
    expect(await refused('REGISTRY_NOT_FOUND', ':v3')).toContain('it has v1, v2');
  });

  test('with one tag for two images is refused, with two tags for one image is published', async () => {
    const images = ['a', 'b'].map((path) => ({ layers: [makeTar([{ path }])], architecture: GUEST }));
    await makeLayout(layout, images);
    expect(await refused('REFERENCE_INVALID', ':latest')).toContain('names 2 images with this tag');
    const [image] = images as [(typeof images)[0]];
    await makeLayout(layout, [
      { ...image, tag: '1' },
      { ...image, tag: '1.2' },
    ]);
    for (const tag of ['', ':1', ':1.2'])
      await host.registry.publishStack('app', `oci:${layout}${tag}`, { replace: true });
  });

  test.each(['mkfifo', 'mkdir', 'ln -s /dev/zero', 'truncate -s 600M'])(
    'whose index.json is made by %s is refused at once',
    async (make) => {
      await makeLayout(layout, [{ layers: ['touch a'] }]);
      await rm(join(layout, 'index.json'));
      execFileSync('sh', ['-c', `${make} "$0"`, join(layout, 'index.json')]);
      expect(await refused('ARTIFACT_INVALID')).toContain('its index.json is not a file, or has more than');
    },
  );

  test.each([null, 'v1'])(
    'whose index.json itself is the index: one for the platform (tag %s)',
    async (tag) => {
      const images = ['amd64', 'arm64'].map((architecture) => ({
        layers: [`echo ${architecture} > etc`],
        architecture,
        tag,
        isListedByPlatform: true,
      }));
      await makeLayout(layout, images);
      const { registry } = host;
      const tags = tag === null ? [''] : ['', `:${tag}`];
      for (const each of tags)
        for (const architecture of ['amd64', 'arm64', undefined]) {
          const platform = architecture === undefined ? {} : { platform: `linux/${architecture}` };
          await registry.publishStack('app', `oci:${layout}${each}`, { ...platform, replace: true });
          expect(await readInside(host.template('app'), '/etc')).toBe(`${architecture ?? GUEST}\n`);
        }
      const options = { platform: 'linux/s390x' };
      const { message } = await rejection(
        registry.publishStack('new', `oci:${layout}`, options),
        'ARTIFACT_INVALID',
      );
      expect(message).toContain('has no image for linux/s390x, only for linux/amd64, linux/arm64');
      // Two images for one platform are no index, unless they have a name.
      await makeLayout(layout, [images[0], { ...images[0], layers: ['touch other'] }] as typeof images);
      if (tag === null)
        await rejection(
          registry.publishStack('new', `oci:${layout}`, { platform: 'linux/amd64' }),
          'REFERENCE_INVALID',
        );
    },
  );

  test('by a relative path is one of the folder that the process was in at the call', async () => {
    await makeLayout(layout, [{ layers: ['touch a'], architecture: GUEST }]);
    const cwd = process.cwd();
    process.chdir(host.root);
    try {
      const published = host.registry.publishStack('app', 'oci:layout');
      process.chdir('/');
      expect(await published).toMatchObject({ name: 'app' });
    } finally {
      process.chdir(cwd);
    }
  });

  test.each(['{', '{}', 'null', '{"manifests":[]}'])('with the index.json %s is invalid', async (text) => {
    await makeLayout(layout, [{ layers: ['touch a'], architecture: GUEST }]);
    await writeFile(join(layout, 'index.json'), text);
    await refused('ARTIFACT_INVALID');
  });

  test('without a blob, or with a damaged one, is invalid', async () => {
    await makeLayout(layout, [{ layers: ['touch a'], architecture: GUEST }]);
    const blobs = join(layout, 'blobs/sha256');
    const names = await readdir(blobs);
    for (const name of names) {
      const whole = await readFile(join(blobs, name));
      await writeFile(join(blobs, name), Buffer.from(whole).fill(1, 20, 30));
      await refused('ARTIFACT_INVALID');
      await rm(join(blobs, name));
      await refused('ARTIFACT_INVALID');
      await writeFile(join(blobs, name), whole);
    }
  });

  test('with a FIFO as a blob ends skopeo, which waits for it', async () => {
    await makeLayout(layout, [{ layers: ['touch a'], architecture: GUEST }]);
    const blobs = join(layout, 'blobs/sha256');
    for (const name of await readdir(blobs)) {
      await rm(join(blobs, name));
      await execute('mkfifo', [join(blobs, name)]);
    }
    const work = { workFolder: host.root, platform: parsePlatform(`linux/${GUEST}`), registries: {} };
    const request = { source: `oci:${layout}`, ...work, silenceMs: 500 };
    const { message } = await rejection(
      fetchImage(new Task('fetching', undefined), request),
      'ARTIFACT_INVALID',
    );
    expect(message).toContain('no byte came for 0.5 s; check that all its blobs are files');
  });
});
