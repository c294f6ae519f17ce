// When two looks at a file saw the same file in the same state.
import { expect, test } from 'vitest';
import { type Identity, identical, sameFile, sameImage, sameState } from '../../src/addon/identity.js';

const ONE: Identity = { device: 1n, inode: 2n, sizeBytes: 3, mtimeNs: 4n, ctimeNs: 5n, links: 1, mount: 6n };

test.each<[string, Partial<Identity>, readonly boolean[]]>([
  ['nothing', {}, [true, true, true, true]],
  ['the inode', { inode: 9n }, [false, false, false, false]],
  ['the device', { device: 9n }, [false, false, false, false]],
  ['the length', { sizeBytes: 9 }, [true, false, false, false]],
  ['the time of the contents', { mtimeNs: 9n }, [true, true, false, false]],
  ['the time of the inode', { ctimeNs: 9n }, [true, true, false, false]],
  ['the number of links, and so the time of the inode', { links: 2, ctimeNs: 9n }, [true, true, false, true]],
])('%s is another', (_what, change, [file, image, all, state]) => {
  const other = { ...ONE, ...change };
  expect([sameFile(ONE, other), sameImage(ONE, other), identical(ONE, other), sameState(ONE, other)]).toEqual(
    [file, image, all, state],
  );
});
