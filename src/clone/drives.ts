// Describes a clone in the form that each VMM expects.
import { show } from '../system/arguments.js';
import { RootfsError } from '../system/errors.js';
import type { VmRootfs } from './vm-rootfs.js';

/** The parts of a clone, a fork or a restored slot that a drive needs. */
export type Drivable = Pick<VmRootfs, 'path'> & Partial<Pick<VmRootfs, 'sharesTemplateInode'>>;

export interface DriveOptions {
  /** The drive's name in the VMM. The default is `rootfs`. */
  readonly id?: string;
  /** The image's path as the VMM sees it, inside its chroot. The default is the clone's path. */
  readonly path?: string;
  /** The guest cannot write. Always true for a clone that shares its template's inode. */
  readonly readOnly?: boolean;
}

/** The body of Firecracker's `PUT /drives/{drive_id}`: `Drive` in its OpenAPI description, firecracker.yaml. */
export interface FirecrackerDrive {
  readonly drive_id: string;
  readonly path_on_host: string;
  readonly is_root_device: true;
  readonly is_read_only: boolean;
}

/**
 * A clone as Firecracker's root drive.
 *
 * @example
 * const rootfs = await registry.cloneForVm('vm-1', 'debian-12', { writable: true });
 * await put('/drives/rootfs', toFirecrackerDrive(rootfs));
 */
export function toFirecrackerDrive(rootfs: Drivable, options: DriveOptions = {}): FirecrackerDrive {
  const { id, path, readOnly } = drive(rootfs, options);
  return { drive_id: id, path_on_host: path, is_root_device: true, is_read_only: readOnly };
}

/** A clone as the value of Cloud Hypervisor's `--disk`: `path=…,readonly=on,id=…`. */
export function toCloudHypervisorDisk(rootfs: Drivable, options: DriveOptions = {}): string {
  const { id, path, readOnly } = drive(rootfs, options);
  // Its option parser takes text in double quotes literally.
  const value = /[,"[\]]/.test(path) ? `"${path}"` : path;
  return `path=${value},readonly=${readOnly ? 'on' : 'off'},id=${id},image_type=raw`;
}

/**
 * A clone as arguments of QEMU: a raw `-drive` and the virtio `-device` on it (`virtio-blk-device` for `-M microvm`).
 */
export function toQemuDrive(
  rootfs: Drivable,
  options: DriveOptions & { readonly device?: 'virtio-blk-pci' | 'virtio-blk-device' } = {},
): string[] {
  const { id, path, readOnly } = drive(rootfs, options);
  // A comma ends a value; two commas stand for one.
  const file = path.replaceAll(',', ',,');
  return [
    '-drive',
    `if=none,id=${id},file=${file},format=raw,read-only=${readOnly ? 'on' : 'off'}`,
    '-device',
    `${options.device ?? 'virtio-blk-pci'},drive=${id}`,
  ];
}

function drive(rootfs: Drivable, options: DriveOptions) {
  // Without this a drive of no path would come of what somebody forgot to await.
  if (typeof rootfs?.path !== 'string')
    throw new RootfsError('INVALID_ARGUMENT', `rootfs must be a clone with a path, got ${show(rootfs)}`);
  const { id = 'rootfs', path = rootfs.path, readOnly = false } = options;
  return { id, path, readOnly: readOnly || rootfs.sharesTemplateInode === true };
}
