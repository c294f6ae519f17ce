export type { Owner } from './arguments.js';
export { type StackInfo, TEMPLATE_ROOTFS_FILE } from './catalog.js';
export type { CloneOptions } from './clone-options.js';
export type { SweepReport } from './clones-folder.js';
export {
  configFromEnv,
  DEFAULT_CLONES_DIR,
  DEFAULT_E2FSCK_BIN,
  DEFAULT_MKE2FS_BIN,
  DEFAULT_RESIZE2FS_BIN,
  DEFAULT_TEMPLATE_DIR,
  type RootfsConfig,
} from './config.js';
export {
  type Drivable,
  type DriveOptions,
  type FirecrackerDrive,
  toCloudHypervisorDisk,
  toFirecrackerDrive,
  toQemuDrive,
} from './drives.js';
export { RootfsError, type RootfsErrorCode } from './errors.js';
export { OPERATIONS, type Operation, type OperationEvent } from './events.js';
export type { ExportedImage } from './export.js';
export type { GcReport } from './gc.js';
export { type ResizeOptions, resizeExt4Image } from './grow.js';
export { type HashOptions, hashFile } from './hash.js';
export { hashFiles } from './hash-files.js';
export type { ImageFormat } from './image-format.js';
export type { Progress } from './long-work.js';
export type { Strategy } from './native.js';
export type { DerivedRootfs } from './new-slot.js';
export type {
  PublishedStack,
  PublishOptions,
  PublishProgress,
  RemoveStackOptions,
} from './publish-options.js';
export type { ReadySlots } from './ready-slots.js';
export type { RecoverReport } from './recover.js';
export {
  type Abortable,
  type CloneManyRequest,
  type CommitOptions,
  type GcOptions,
  type PrewarmOptions,
  type RestoreOptions,
  RootfsRegistry,
  type SnapshotOptions,
} from './registry.js';
export type { ReleaseOptions } from './release.js';
export type { SlotDetails } from './slot-details.js';
export type { SlotHealth, SlotInfo } from './slot-info.js';
export type { ForkOptions } from './slot-options.js';
export type { SlotUse } from './slot-use.js';
export { SNAPSHOT_MANIFEST_FILE, type SnapshotFile } from './snapshot-manifest.js';
export type { NewSnapshot, RestoredRootfs, Snapshot } from './snapshots.js';
export { CLONE_ROOTFS_FILE, CLONE_SIZE_STAMP_FILE, CLONE_STAMP_FILE } from './stamps.js';
export type { StackUsage, UsageReport } from './usage.js';
export type { Difference, VerifyOptions, VerifyReport } from './verify.js';
export { safeVmId } from './vm-id.js';
export type { Attempt, VmRootfs } from './vm-rootfs.js';
