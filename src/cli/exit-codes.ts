// Exit statuses, as documented in docs/cli.md.
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  system: 5,
} as const;

const USAGE = new Set([
  'FOLDERS_OVERLAP',
  'UNSAFE_PATH',
  'INVALID_ARGUMENT',
  'INVALID_STACK_NAME',
  'INVALID_SNAPSHOT_NAME',
  'INVALID_VM_ID',
  'CONFIG_INVALID',
  'REFERENCE_INVALID',
]);

// A missing program is not something that the caller asked for, so it is not status 3.
const MISSING_PROGRAMS = new Set([
  'RESIZE2FS_NOT_FOUND',
  'E2FSCK_NOT_FOUND',
  'MKE2FS_NOT_FOUND',
  'PROGRAM_NOT_FOUND',
]);

const REFUSED = new Set([
  'CLONES_DIR_INVALID',
  'NOT_WARM',
  'SHARED_INODE',
  'SLOT_BUSY',
  'SLOT_INVALID',
  'SLOT_TORN',
  'SOURCE_CHANGED',
  'SOURCE_TOO_LARGE',
  'STAMP_INVALID',
  'STORE_INVALID',
  'STORE_NOT_MOUNTED',
  'TEMPLATE_CHANGED',
  'TEMPLATE_INVALID',
  'VM_ID_COLLISION',
  'STACK_NAME_COLLISION',
  'SNAPSHOT_NAME_COLLISION',
]);

/** The exit status for an error of this code. */
export function exitCodeOf(code: string): number {
  if (USAGE.has(code)) return EXIT.usage;
  if (code === 'ENOENT' || (code.endsWith('_NOT_FOUND') && !MISSING_PROGRAMS.has(code))) return EXIT.notFound;
  if (REFUSED.has(code) || /_(EXISTS|IN_USE|NOT_EMPTY|MISMATCH|REFUSED)$/.test(code)) return EXIT.refused;
  // System error codes are one word.
  if (/^E[A-Z0-9]+$/.test(code)) return EXIT.system;
  return EXIT.failed;
}
