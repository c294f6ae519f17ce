// Recognises trees that hold a root file system, or a disk with one, in a form of their own: published as they are, no
// guest would boot. Only their names at the root are looked at.
import { RootfsError } from '../../system/errors.js';
import { INPUT_NAME } from '../source-name.js';
import type { Children } from './children.js';
import { type FileNode, type FolderNode, showPath, type TreeNode } from './file-tree.js';

/** Where a tree comes from. It says which program can read it. */
type TreeOrigin = 'tar' | 'folder';

// A root file system has one of these, unless it is a program and little else.
const OF_A_ROOT = ['etc', 'bin', 'usr', 'sbin', 'init', 'lib'];

const DISK = /\.(raw|img|qcow2|vmdk|vhdx?|vdi)$/i;
/** What OVAs and Vagrant's boxes have in folders. */
const BESIDE_DISKS = ['include', 'templates'];

/** The file name of an image's layer or config: skopeo, jib, kaniko, nix and podman name them by their digest. */
const BLOB = /^(sha256:)?[\da-f]{12,64}(\.json|\.tar(\.gz)?)?$|\.tar(\.gz)?$/;

const EXECUTABLE = 0o111;

const NAMES_LIMIT = 1000;

/** Throws `IMAGE_INVALID` for what can be no root file system. In doubt it does not: a root may be a single program. */
export function refuseOtherTree(source: string, root: FolderNode, origin: TreeOrigin): void {
  const { children } = root;
  if (OF_A_ROOT.some((name) => children.has(name))) return;
  const why = imageWithLayers(source, root, origin) ?? folderInside(root, origin) ?? disks(root, origin);
  if (why !== undefined) throw new RootfsError('IMAGE_INVALID', `${source} ${why}`, { path: source });
}

function imageWithLayers(source: string, { children }: FolderNode, origin: TreeOrigin): string | undefined {
  const has = (name: string) => children.has(name);
  const isDockerArchive =
    has('manifest.json') && (has('repositories') || has('blobs') || holdsBlobs(children));
  const isLayout = has('oci-layout') || (has('index.json') && has('blobs'));
  if (!isDockerArchive && !isLayout) return undefined;
  return `is a container image with layers, not a root file system: ${remedy()}`;

  function remedy(): string {
    if (origin === 'folder' && isLayout) return `publish oci:${source}`;
    if (origin === 'folder' && has('version')) return throughLayout(`dir:${source}`);
    if (origin === 'folder') return `${DOCKER_EXPORT}, if you have the image in Docker`;
    const archive = `${isDockerArchive ? 'docker' : 'oci'}-archive:${source === INPUT_NAME ? 'FILE' : source}`;
    return `${throughLayout(archive)}; or ${DOCKER_EXPORT}`;
  }
}

const DOCKER_EXPORT = 'publish what docker export "$(docker create IMAGE)" gives';

function throughLayout(reference: string): string {
  return `run skopeo copy ${reference} oci:DIR, and publish oci:DIR`;
}

function holdsBlobs(children: Children<TreeNode>): boolean {
  return !holdsProgram(children) && few(children).some(([name]) => BLOB.test(name));
}

/** It may be all that a guest needs. */
function holdsProgram(children: Children<TreeNode>): boolean {
  return few(children).some(([, node]) => node.kind === 'file' && isProgram(node));
}

function isProgram({ mode }: FileNode): boolean {
  return (mode & EXECUTABLE) !== 0;
}

/** None if there are more than such trees have: a folder may hold millions. */
function few(children: Children<TreeNode>): [name: string, node: TreeNode][] {
  if (children.size > NAMES_LIMIT) return [];
  return [...children.keys()].map((name) => [name, children.get(name) as TreeNode]);
}

function folderInside({ children }: FolderNode, origin: TreeOrigin): string | undefined {
  if (children.get('rootfs')?.kind !== 'folder' || holdsProgram(children)) return undefined;
  const isLxd = children.has('metadata.yaml');
  if (!isLxd && !children.has('config.json')) return undefined;
  return (
    `is ${isLxd ? 'an image of LXD or Incus' : 'a bundle of an OCI runtime'}, not a root file system: ` +
    `${origin === 'tar' ? 'unpack it and ' : ''}publish its folder rootfs`
  );
}

function disks({ children }: FolderNode, origin: TreeOrigin): string | undefined {
  let disk: string | undefined;
  for (const [name, node] of few(children)) {
    if (DISK.test(name) && node.kind === 'file') disk ??= name;
    else if (!isBesideDisks(name, node)) return undefined;
  }
  if (disk === undefined) return undefined;
  return (
    'holds the image of a disk, as an OVA or a box of Vagrant does, and no root file system: ' +
    `${origin === 'tar' ? 'unpack it and ' : ''}publish ${showPath(disk)} itself`
  );
}

/** A folder or a program would be of use to a guest. */
function isBesideDisks(name: string, node: TreeNode): boolean {
  if (node.kind === 'folder') return BESIDE_DISKS.includes(name);
  return node.kind === 'file' && !isProgram(node);
}
