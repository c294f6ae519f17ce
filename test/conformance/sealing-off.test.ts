// The whole suite once more with sealing off, on the filesystems where that makes a difference: clones come straight
// from the templates.
import { vi } from 'vitest';

vi.hoisted(() => {
  process.env.MICROVM_ROOTFS_TEST_SEALING = 'off';
});

import './concurrency.test.js';
import './holes.test.js';
import './ladder.test.js';
import './slots.test.js';
