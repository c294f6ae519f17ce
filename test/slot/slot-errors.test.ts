// What the errors about a slot tell: codes, paths and advice, for ids and files of every kind.
import { expect, test } from 'vitest';
import type { Template } from '../../src/catalog/template.js';
import * as errors from '../../src/slot/slot-errors.js';
import { parseVmId } from '../../src/slot/vm-id.js';

const PATH = '/clones/vm';

test.each([
  ['a/b', 'a:b'],
  ['caf\u00e9', 'caf\u00c9'],
  ['vm-\u00e4', 'vm-\u00c4'],
  ['\u0430', '\u0410'],
  ['a/b', 'a_b'],
])(
  'ids %j and %j that become one name are to be plain, whatever case means to the file system',
  (id, owner) => {
    const { code, path, message } = errors.vmIdCollisionError(PATH, parseVmId(id), owner);
    expect({ code, path }).toEqual({ code: 'VM_ID_COLLISION', path: PATH });
    expect(message).toContain('use ids of ASCII letters');
    expect(message).not.toContain('upper from lower');
  },
);

test.each([
  ['vm', 'VM'],
  ['A.b', 'a.b'],
  ['A.b', 'a_b'],
  ['x-\u00e4', 'X-\u00c4'],
])('ids %j and %j with names that differ in case are to differ in more', (id, owner) => {
  const { message } = errors.vmIdCollisionError(PATH, parseVmId(id), owner);
  expect(message).toContain('does not tell upper from lower case, so use ids that differ in more');
});

test('both ids of a collision are told, and which of them has the folder', () => {
  const { message } = errors.vmIdCollisionError(PATH, parseVmId('a"b\nc'), 'a/b\tc');
  expect(message).toContain(
    'VM ids "a\\"b\\nc" and "a/b\\tc" have the same folder, /clones/vm, which belongs to',
  );
});

test('an image that is longer: with a size stamp it is told what to write, without one what to ask for', () => {
  const torn = errors.imageLongerError(PATH, 8192, undefined, 4096);
  expect(torn).toMatchObject({ code: 'SLOT_TORN', path: PATH });
  expect(torn.message).toContain('/clones/vm/rootfs.ext4 has 8192 bytes, the template 4096');
  expect(torn.message).toContain('ask for 8192 bytes');
  for (const sizeStamp of [0, 4096]) {
    const stamped = errors.imageLongerError(PATH, 8192, sizeStamp, sizeStamp);
    expect(stamped).toMatchObject({ code: 'SIZE_STAMP_MISMATCH', path: PATH });
    expect(stamped.message).toContain(`rootfs.ext4.size says ${sizeStamp}`);
    expect(stamped.message).toContain('Write 8192 to rootfs.ext4.size');
  }
});

test.each([
  ['rootfs.ext4', 'SLOT_INVALID', 'is a symbolic link, a folder or a device', 'put the disk itself there'],
  ['rootfs.ext4.sha256', 'STAMP_INVALID', 'holds no digest of 64 hex digits', 'correct the file'],
  ['rootfs.ext4.size', 'STAMP_INVALID', 'holds no number of bytes', 'correct the file'],
  ['rootfs.ext4.size.new', 'STAMP_INVALID', 'holds no number of bytes', 'correct the file'],
  ['rootfs.ext4.unsettled', 'STAMP_INVALID', 'holds no id of a boot', 'remove the file if the disk is whole'],
])('an unknown %s is %s: what it holds, its own path, and how to mend it', (file, code, holds, advice) => {
  const error = errors.unknownFileError(PATH, file);
  expect(error).toMatchObject({ code, path: `${PATH}/${file}` });
  expect(error.message).toContain(`${PATH}/${file} ${holds}`);
  expect(error.message).toContain(advice);
  expect(error.message).toContain('release the slot');
});

test('each of the others has its code, its path, and words on what to do', () => {
  const vm = parseVmId('web/1');
  const template = { path: '/t/rootfs.ext4', sha256: 'b'.repeat(64) } as Template;
  const all = [
    ['STAMP_MISMATCH', errors.stampMismatchError(PATH, 'a'.repeat(64), template), 'stop the VM and release'],
    ['SLOT_NOT_FOUND', errors.slotNotFoundError(PATH, vm), 'VM web_1 has no slot'],
    [
      'SLOT_BUSY',
      errors.slotBusyError('forking x', PATH),
      'forking x: another process keeps changing the slot',
    ],
    ['SLOT_BUSY', errors.slotBusyError('x', PATH, 'the link'), 'keeps changing the link'],
    ['SLOT_INVALID', errors.slotInvalidError(PATH), 'move it away'],
    ['SLOT_TORN', errors.slotTornError(PATH, 'no stamp'), 'not handed out: no stamp; stop the VM'],
    ['SLOT_TORN', errors.unstampedError(PATH), 'no rootfs.ext4.sha256'],
    ['SLOT_TORN', errors.ownerUnknownError(PATH), 'rootfs.ext4.id is missing'],
  ] as const;
  for (const [code, error, words] of all) {
    expect(error).toMatchObject({ code, path: PATH });
    expect(error.message).toContain(words);
    expect(error.message).not.toContain('undefined');
  }
  expect(errors.otherLinksError(vm, 3)).toMatchObject({ code: 'SHARED_INODE' });
  expect(errors.otherLinksError(vm, 3).message).toContain('the disk of VM "web/1" has 3 hardlinks');
});
