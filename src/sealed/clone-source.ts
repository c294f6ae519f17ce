import type { Identity } from '../addon/identity.js';
import type { NativeSource } from '../addon/native.js';

/** Where a clone's bytes come from. */
export interface CloneSource {
  readonly source: NativeSource;
  readonly identity: Identity;
  /** A sealed image already has its final size. A template may have to be grown to it. */
  readonly sealed: boolean;
}
