// The ES module is a face of the CommonJS one: with one class identity `instanceof RootfsError` holds from both sides.

export type * from './index.js';
export {
  CLONE_ROOTFS_FILE,
  CLONE_SIZE_STAMP_FILE,
  CLONE_STAMP_FILE,
  configFromEnv,
  DEFAULT_CLONES_DIR,
  DEFAULT_E2FSCK_BIN,
  DEFAULT_MKE2FS_BIN,
  DEFAULT_RESIZE2FS_BIN,
  DEFAULT_TEMPLATE_DIR,
  hashFile,
  hashFiles,
  OPERATIONS,
  RootfsError,
  RootfsRegistry,
  resizeExt4Image,
  SNAPSHOT_MANIFEST_FILE,
  safeVmId,
  TEMPLATE_ROOTFS_FILE,
  toCloudHypervisorDisk,
  toFirecrackerDrive,
  toQemuDrive,
} from './index.js';
