export type { Attempt } from './addon/attempts.js';
export { type StackInfo, TEMPLATE_ROOTFS_FILE } from './catalog/catalog.js';
export type { ImageConfig } from './catalog/image-config.js';
export type { CloneOptions } from './clone/clone-options.js';
export {
  type Drivable,
  type DriveOptions,
  type FirecrackerDrive,
  toCloudHypervisorDisk,
  toFirecrackerDrive,
  toQemuDrive,
} from './clone/drives.js';
export type { ReadySlots } from './clone/ready-slots.js';
export type { VmRootfs } from './clone/vm-rootfs.js';
export type { SweepReport } from './folder/sweep-folder.js';
export { type ResizeOptions, resizeExt4Image } from './image/grow.js';
export { type HashOptions, hashFile } from './image/hash.js';
export { hashFiles } from './image/hash-files.js';
export type { ImageFormat } from './publish/image-format.js';
export type {
  PublishedStack,
  PublishLimits,
  PublishOptions,
  PublishProgress,
  RemoveStackOptions,
} from './publish/publish-options.js';
export {
  type Abortable,
  type CloneManyRequest,
  type CommitOptions,
  type GcOptions,
  type PrewarmOptions,
  type PrewarmSnapshotOptions,
  type RestoreManyRequest,
  type RestoreOptions,
  RootfsRegistry,
  type SnapshotOptions,
} from './registry.js';
export type { PulledSnapshot, PullSnapshotOptions, PushedSnapshot } from './remote/snapshot-options.js';
export type {
  InspectOptions,
  PulledStack,
  PullOptions,
  PushedArtifact,
  PushedStack,
  PushOptions,
  RemoteArtifact,
  TransferOptions,
  TransferProgress,
} from './remote/transfer-options.js';
export type { PackingEvent } from './sealed/packer.js';
export type { SealedImageInfo } from './sealed/sealed-folder.js';
export type { ExportedImage } from './slot/export.js';
export type { DerivedRootfs } from './slot/new-slot.js';
export type { ReleaseOptions } from './slot/release.js';
export type { SlotDetails } from './slot/slot-details.js';
export type { SlotHealth, SlotInfo } from './slot/slot-info.js';
export type { ForkOptions } from './slot/slot-options.js';
export type { SlotUse } from './slot/slot-use.js';
export { CLONE_ROOTFS_FILE, CLONE_SIZE_STAMP_FILE, CLONE_STAMP_FILE } from './slot/stamps.js';
export { safeVmId } from './slot/vm-id.js';
export {
  SNAPSHOT_MANIFEST_FILE,
  type SnapshotFacts,
  type SnapshotFile,
} from './snapshots/snapshot-manifest.js';
export type { RestoredRootfs } from './snapshots/snapshot-restorer.js';
export type { NewSnapshot, Snapshot } from './snapshots/snapshots.js';
export type { Owner } from './system/arguments.js';
export {
  configFromEnv,
  DEFAULT_CLONES_DIR,
  DEFAULT_E2FSCK_BIN,
  DEFAULT_MKE2FS_BIN,
  DEFAULT_RESIZE2FS_BIN,
  DEFAULT_TEMPLATE_DIR,
  type RootfsConfig,
} from './system/config.js';
export { RootfsError, type RootfsErrorCode } from './system/errors.js';
export { OPERATIONS, type Operation, type OperationEvent } from './system/events.js';
export type { Progress } from './system/long-work.js';
export type { RegistrySetting, RegistrySettings } from './system/registry-settings.js';
export type { Strategy } from './system/strategy.js';
export type { GcReport } from './upkeep/gc.js';
export type { RecoverReport } from './upkeep/recover.js';
export type { StackUsage, UsageReport } from './upkeep/usage.js';
export type { Difference, VerifyOptions, VerifyReport } from './upkeep/verify.js';
