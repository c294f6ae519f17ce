// A registry with artifacts to pull and to push over. They are made once; each visit gets a repository of its own that
// has them all, so what it does to a tag is seen by no other.
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RootfsRegistry } from '../../src/index.js';
import { ANNOTATION } from '../../src/remote/artifact.js';
import { sha256 } from '../fixtures/files.js';
import { KiB, pattern, run } from '../fixtures/images.js';
import { startOciRegistry } from '../fixtures/oci-registry.js';
import { TEMPLATE_BYTES } from './operations.js';
import type { Masters } from './site.js';

const MASTERS = 'masters';

/** What a tag names. */
export interface Tagged {
  /** Of the manifest. */
  readonly digest: string;
  /** Of the image, or of the snapshot's manifest. */
  readonly sha256: string;
}

interface Manifest {
  readonly config: { readonly digest: string };
  readonly layers: readonly { readonly digest: string; readonly size: number }[];
  readonly annotations: Readonly<Record<string, string>>;
}

export class Artifacts {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly #repositories: string;
  /** Blobs that were read and found whole. */
  readonly #whole = new Set<string>();

  private constructor(host: string, root: string) {
    this.host = host;
    this.#repositories = join(root, 'data/docker/registry/v2/repositories');
  }

  /** Tags `stack`, `update` and `snapshot`, of a VM's disk and its memory. */
  static async make(folder: string, masters: Masters): Promise<Artifacts> {
    const { host, root } = await startOciRegistry();
    await masters.add('cargo', (path) => makeImage(path, 1));
    await masters.add('update', (path) => makeImage(path, 2));
    const sender = join(folder, 'sender');
    const [templateDir, clonesDir] = [join(sender, 'templates'), join(sender, 'clones')];
    for (const kind of ['cargo', 'update', 'compact']) {
      await mkdir(join(templateDir, kind), { recursive: true });
      await cp(masters.path(kind), join(templateDir, kind, 'rootfs.ext4'));
    }
    const memory = join(sender, 'memory');
    await cp(masters.path('scattered'), memory);
    const registry = new RootfsRegistry({
      templateDir,
      clonesDir,
      registries: { [host]: { insecure: true } },
    });
    const reference = (tag: string) => `${host}/${MASTERS}:${tag}`;
    try {
      await registry.pushStack('cargo', reference('stack'));
      await registry.pushStack('update', reference('update'));
      await registry.cloneForVm('vm/1', 'compact', { writable: true });
      await registry.snapshotSlot('vm/1', 'paused', { with: [memory] });
      await registry.pushSnapshot('paused', reference('snapshot'));
    } finally {
      await registry.close();
    }
    await rm(sender, { recursive: true });
    return new Artifacts(host, root);
  }

  /** Makes a repository with all tags. Its blobs are those of the others: a registry keeps each once. */
  async makeRepository(name: string): Promise<void> {
    await cp(join(this.#repositories, MASTERS), join(this.#repositories, name), { recursive: true });
  }

  async removeRepository(name: string): Promise<void> {
    await rm(join(this.#repositories, name), { recursive: true, force: true });
  }

  async tags(repository: string): Promise<ReadonlyMap<string, Tagged>> {
    const { tags } = JSON.parse((await this.#get(`${repository}/tags/list`)).toString());
    const found = new Map<string, Tagged>();
    for (const tag of tags as string[]) {
      const { bytes, manifest } = await this.#manifest(repository, tag);
      found.set(tag, {
        digest: `sha256:${sha256(bytes)}`,
        sha256: manifest.annotations[ANNOTATION.sha256] ?? '',
      });
    }
    return found;
  }

  /** What is not there, or not whole, of what a tag names. */
  async faultsOf(repository: string, tag: string): Promise<string[]> {
    const { manifest } = await this.#manifest(repository, tag);
    const faults: string[] = [];
    for (const { digest } of [manifest.config, ...manifest.layers]) {
      const url = `http://${this.host}/v2/${repository}/blobs/${digest}`;
      // A blob that is there is there for all repositories, but each has to have it.
      const answer = await fetch(url, { method: this.#whole.has(digest) ? 'HEAD' : 'GET' });
      const bytes = Buffer.from(await answer.arrayBuffer());
      if (answer.status !== 200) faults.push(`blob ${digest} has status ${answer.status}`);
      else if (this.#whole.has(digest) || digest === `sha256:${sha256(bytes)}`) this.#whole.add(digest);
      else faults.push(`blob ${digest} has other bytes`);
    }
    return faults;
  }

  /** Of the manifest that the masters have under this tag. */
  async digestOf(tag: string): Promise<string> {
    return `sha256:${sha256((await this.#manifest(MASTERS, tag)).bytes)}`;
  }

  async #manifest(repository: string, tag: string): Promise<{ bytes: Buffer; manifest: Manifest }> {
    const bytes = await this.#get(`${repository}/manifests/${tag}`);
    return { bytes, manifest: JSON.parse(bytes.toString()) };
  }

  async #get(path: string): Promise<Buffer> {
    const headers = { accept: 'application/vnd.oci.image.manifest.v1+json' };
    const answer = await fetch(`http://${this.host}/v2/${path}`, { headers });
    if (answer.status !== 200) throw new Error(`${path} has status ${answer.status}`);
    return Buffer.from(await answer.arrayBuffer());
  }
}

/** With a dozen chunks of data, of which few differ from version to version. */
async function makeImage(path: string, version: number): Promise<void> {
  const tree = await mkdtemp(join(tmpdir(), 'rootfs-tree-'));
  try {
    await writeFile(join(tree, 'same'), pattern(1536 * KiB, 7));
    await writeFile(join(tree, 'other'), pattern(64 * KiB, 100 + version));
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', tree, path, `${TEMPLATE_BYTES / KiB}K`]);
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}
