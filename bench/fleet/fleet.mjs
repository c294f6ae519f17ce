// A registry, and in it a template and two upgrades of it, for all measures of pushes and pulls. Each is made when it
// is first asked for.
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../command.mjs';
import { formatBytes } from '../format.mjs';
import { startOciRegistry } from '../oci-registry.mjs';
import { bytesOf, copyPackages, installedPackages, upgradePackages, upTo } from './packages.mjs';

/** @typedef {import('../workspace.mjs').Workspace} Workspace */
/** @typedef {'cold' | 'anew' | 'in-place'} VersionName */

/**
 * @typedef {object} Version
 * @property {VersionName} name also its tag
 * @property {string} reference
 * @property {string} image a copy of it
 * @property {number} sizeBytes
 * @property {number} uploadedBytes
 * @property {string} about
 */

const MiB = 2 ** 20;
/** As many bytes as Debian 12 has with a usual set of packages, and the share of them that an upgrade has replaced. */
const FULL = { dataBytes: 937 * MiB, imageBytes: 2048 * MiB };
const QUICK = { dataBytes: 48 * MiB, imageBytes: 256 * MiB };
const CHANGED_SHARE = 0.2;

/** @type {WeakMap<Workspace, Promise<Fleet>>} */
const FLEETS = new WeakMap();

/** @param {Workspace} workspace */
export function fleetOf(workspace) {
  let fleet = FLEETS.get(workspace);
  if (fleet === undefined) {
    fleet = makeFleet(workspace);
    FLEETS.set(workspace, fleet);
  }
  return fleet;
}

/** @param {Workspace} workspace */
async function makeFleet(workspace) {
  const folder = await workspace.newFolder('fleet');
  const fleet = new Fleet(workspace, folder, await startOciRegistry(workspace));
  await mkdir(fleet.tree);
  await copyPackages(fleet.packages, fleet.tree);
  return fleet;
}

export class Fleet {
  /** @type {Map<VersionName, Promise<Version>>} */
  #versions = new Map();
  #hosts = 0;
  #size;

  /**
   * @param {Workspace} workspace
   * @param {string} folder
   * @param {import('../oci-registry.mjs').OciRegistry} registry
   */
  constructor(workspace, folder, registry) {
    this.workspace = workspace;
    this.folder = folder;
    this.registry = registry;
    this.tree = join(folder, 'tree');
    this.#size = workspace.quick ? QUICK : FULL;
    this.packages = installedPackages(this.#size.dataBytes);
    this.changed = upTo(this.#size.dataBytes * CHANGED_SHARE, this.packages);
  }

  /** @param {VersionName} name */
  version(name) {
    let version = this.#versions.get(name);
    if (version === undefined) {
      version = this.#make(name);
      this.#versions.set(name, version);
    }
    return version;
  }

  /**
   * A host with an empty catalog, unless there is one of that name. Close it, and remove `folder`.
   * @param {string} [name]
   * @param {Record<string, object>} [registries]
   */
  host(name = `host-${this.#hosts++}`, registries = {}) {
    const folder = join(this.folder, name);
    const { RootfsRegistry } = this.workspace.library;
    const registry = new RootfsRegistry({
      templateDir: join(folder, 'templates'),
      clonesDir: join(folder, 'vms'),
      registries: { [this.registry.host]: { insecure: true }, ...registries },
    });
    const end = async () => {
      await registry.close();
      await rm(folder, { recursive: true, force: true });
    };
    return { folder, registry, end };
  }

  /** What the upgrades are. */
  get aboutUpgrade() {
    const { packages, changed } = this;
    return (
      `an upgrade that replaces all ${changed.reduce((sum, { files }) => sum + files.length, 0)} files of ` +
      `${changed.length} of ${packages.length} packages, ${formatBytes(bytesOf(changed))} of ` +
      `${formatBytes(bytesOf(packages))}, by other bytes that compress as well`
    );
  }

  /** @param {VersionName} name */
  async #make(name) {
    const image = join(this.folder, `${name}.ext4`);
    const source = name === 'in-place' ? await this.#upgradedInPlace(image) : this.tree;
    if (name === 'anew') {
      await this.version('cold'); // of the tree as it was
      await upgradePackages(this.changed, this.tree);
    }
    const { registry, end } = this.host(`builder-${name}`);
    const size = source === this.tree ? { sizeBytes: this.#size.imageBytes } : {};
    const { sizeBytes, templatePath } = await registry.publishStack('system', source, size);
    const reference = `${this.registry.host}/bench/system:${name}`;
    const { uploadedBytes } = await registry.pushStack('system', reference);
    await run('cp', ['--reflink=always', templatePath, image]);
    await end();
    await this.workspace.settle();
    const about = `${formatBytes(sizeBytes)} with ${formatBytes(bytesOf(this.packages))} of files`;
    return { name, reference, image, sizeBytes, uploadedBytes, about };
  }

  /** @param {string} image */
  async #upgradedInPlace(image) {
    const mountPoint = join(this.folder, 'mnt');
    await run('cp', ['--reflink=always', (await this.version('cold')).image, image]);
    await mkdir(mountPoint);
    await run('mount', ['-o', 'loop', image, mountPoint]);
    await upgradePackages(this.changed, mountPoint);
    await run('umount', [mountPoint]);
    return image;
  }
}
