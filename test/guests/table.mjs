// The guests of npm run test:guests: a kernel each, and the file systems that it is to be tested with. One boot runs
// all of a guest's rows.

const DEBIAN_11 = '^linux-image-5\\.10\\.0-[0-9]+-amd64$';
const DEBIAN_12 = '^linux-image-6\\.1\\.0-[0-9]+-amd64$';
const BACKPORTS = '^linux-image-6\\.12\\.[0-9.]+\\+deb12-amd64$';
const SID = '^linux-image-[0-9.]+\\+deb[0-9]+-amd64$';

// What is expected of a file system: see Filesystem in test/fixtures/filesystems.ts.
const EVERYTHING = { reflinks: true, fiemap: true, seekHole: true, hidesOpenFiles: false };

function onDisk(name, type, mkfs, expected = {}) {
  return { name, ...EVERYTHING, ...expected, mkfs, mount: (folder) => `mount -t ${type} "$disk" ${folder}` };
}

const XFS = onDisk('XFS', 'xfs', ['mkfs.xfs', '-q', '-f', '-m', 'reflink=1']);
const BTRFS = onDisk('btrfs', 'btrfs', ['mkfs.btrfs', '-q', '-f']);

/** Its mkfs is not in Debian 12. */
function bcachefs(name, ...options) {
  return onDisk(name, 'bcachefs', ['bcachefs', 'format', '--quiet', '--force', ...options]);
}

/** ZFS does not report extents. A pool lies in a file, in the guest's memory. */
function zfs(name, options = '', expected = {}) {
  return {
    name,
    ...EVERYTHING,
    fiemap: false,
    ...expected,
    mount: (folder) => {
      const pool = folder.replaceAll('/', '_').slice(1);
      const vdev = `/memory/${pool}`;
      return `truncate -s 1G ${vdev} && zpool create ${options} -O mountpoint=${folder} ${pool} ${vdev}`;
    },
  };
}

const PASSWORD = '-O encryption=on -O keyformat=passphrase -O keylocation=file:///guest/password';

// For templates on another file system than clones: the other tests expect reflinks of the templates themselves.
const APART = ['slots', 'concurrency', 'holes'].map((name) => `test/conformance/${name}.test.ts`);

export const GUESTS = [
  { name: 'Debian 11', kernel: DEBIAN_11, filesystems: [XFS, BTRFS] },
  { name: 'Debian 12', kernel: DEBIAN_12, filesystems: [XFS, BTRFS] },
  { name: 'backports', kernel: BACKPORTS, filesystems: [XFS, BTRFS] },
  { name: 'sid', kernel: SID, filesystems: [XFS, BTRFS] },
  {
    name: 'bcachefs',
    kernel: BACKPORTS,
    extra: 'bcachefs',
    filesystems: [
      bcachefs('bcachefs'),
      bcachefs('bcachefs, compression', '--compression=lz4'),
      bcachefs('bcachefs, blocks of 4 KiB', '--block_size=4k'),
    ],
  },
  {
    name: 'ZFS',
    kernel: BACKPORTS,
    extra: 'zfs',
    filesystems: [
      zfs('ZFS'),
      zfs('ZFS, records of 4 KiB', '-O recordsize=4k'),
      zfs('ZFS, records of 1 MiB', '-O recordsize=1M -O compression=zstd'),
      zfs('ZFS, encrypted', PASSWORD),
    ],
  },
  {
    name: 'ZFS without cloning',
    kernel: BACKPORTS,
    extra: 'zfs',
    before: 'modprobe zfs && echo 0 >/sys/module/zfs/parameters/zfs_bclone_enabled',
    filesystems: [zfs('ZFS, zfs_bclone_enabled=0', '', { reflinks: false })],
  },
  {
    name: 'two datasets',
    kernel: BACKPORTS,
    extra: 'zfs',
    after: 'zfs create fs_0/templates && export TEST_TEMPLATES=/fs/0/templates',
    filesystems: [zfs('ZFS, templates in another dataset')],
    files: APART,
  },
  {
    name: 'two keys',
    kernel: BACKPORTS,
    extra: 'zfs',
    after: `zfs create ${PASSWORD.replaceAll('-O', '-o')} fs_0/templates && export TEST_TEMPLATES=/fs/0/templates`,
    filesystems: [zfs('ZFS, templates under another key', PASSWORD)],
    files: APART,
  },
  {
    name: 'two pools',
    kernel: BACKPORTS,
    extra: 'zfs',
    after: [
      'truncate -s 1G /memory/other && zpool create -O mountpoint=/fs/other other /memory/other',
      'export TEST_TEMPLATES=/fs/other',
    ].join('\n'),
    filesystems: [zfs('ZFS, templates in another pool')],
    files: APART,
  },
  {
    name: 'faults',
    kernel: BACKPORTS,
    extra: 'zfs',
    filesystems: [zfs('ZFS, pools at fault')],
    files: ['test/guests/zfs-faults.test.ts'],
  },
];
