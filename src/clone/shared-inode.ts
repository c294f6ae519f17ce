// What is refused and what is warned about when a clone is a hardlink of its template.

import type { Template } from '../catalog/template.js';
import { RootfsError } from '../system/errors.js';
import type { CloneRequest } from './clone-plan.js';

export function sharedInodeError(request: CloneRequest): RootfsError {
  return new RootfsError(
    'SHARED_INODE',
    `the clone for VM "${request.vm.raw}" would be a hardlink of ${request.templatePath}, ` +
      'and owner or mode would change the template with it: pass writable: true for a clone of its own, ' +
      'or leave owner and mode out',
    { path: request.templatePath },
  );
}

// One flag for all copies of this library in the process.
const WARNED = Symbol.for('microvm-rootfs.warned-of-shared-inode');

export function warnOfSharedInode(request: CloneRequest, template: Template): void {
  const flags = globalThis as { [WARNED]?: boolean };
  if (request.writable === false || flags[WARNED]) return;
  flags[WARNED] = true;
  process.emitWarning(
    'the file system of the clones cannot reflink, so clones are hardlinks of their template ' +
      `(${template.path}): a guest that writes to its root changes the template. ` +
      'Pass writable: true for copies, or writable: false if all guests ' +
      'mount their root read-only',
    { type: 'RootfsWarning', code: 'MICROVM_ROOTFS_SHARED_INODE' },
  );
}
