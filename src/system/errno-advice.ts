// What to do when the system fails with a code.

const NO_PROCESS = 'no more processes are allowed here: raise the limit (ulimit -u, pids.max)';

const NOT_TOLD =
  'the image belongs to another user, so this process needs CAP_LEASE or CAP_SETUID to find out whether it is in ' +
  'use: give it one of them';

const NOT_MAPPED =
  'this process is in a user namespace that has no such id: map it (/proc/self/uid_map, /proc/self/gid_map), or give ' +
  'another owner';

const ADVICE: Readonly<Record<string, string>> = {
  EACCES: 'check who owns the folder and what this process may do',
  EAGAIN: 'another process holds a lease on the file (fcntl F_SETLEASE): stop that process',
  EBADMSG: 'the disk holds damaged data: check the kernel log and the file system',
  EBUSY: 'something is mounted there, or uses it: unmount or stop that first',
  EDQUOT: 'the quota is used up: release slots, delete files or raise the quota',
  EFBIG: "the file is larger than the file system or this process's limit (ulimit -f) allows",
  EXDEV:
    'another file system is mounted on a folder there: unmount it, or put an ordinary folder in its place',
  EIO: 'the disk reports a fault: check the kernel log and the file system',
  EMFILE: 'this process has too many files open: raise its limit (ulimit -n)',
  ENOLCK: 'the server of the network file system gives no locks: start its lock service',
  ENOLINK: 'the connection to the file system is lost: mount it again',
  ENOKEY: 'the folder is encrypted and its key is not loaded: unlock it',
  EKEYEXPIRED: 'the folder is encrypted and its key has expired: unlock it again',
  EKEYREVOKED: 'the folder is encrypted and its key was revoked: unlock it again',
  ENODEV: 'the disk is gone: check the kernel log',
  ENOMEDIUM: 'the drive is empty: check the disk',
  EREMOTEIO: 'the disk reports a fault: check the kernel log and the file system',
  EHWPOISON: 'the memory of this machine is faulty: check the kernel log',
  ENFILE: 'the system has too many files open: raise fs.file-max',
  ENOENT: 'make sure that the path exists',
  ENOMEM: 'the system is out of memory',
  ENOTDIR: 'a part of the path is not a folder: correct the path',
  ENOTCONN: 'the program that serves this FUSE mount is gone: unmount it (umount -l) and mount it again',
  ENOSPC: 'that file system is full: release slots, delete files or grow it',
  ENOSYS: 'the kernel lacks this call, or a sandbox (seccomp) forbids it: allow it there',
  ENOTSUP: 'the file system there cannot do this: use a folder on another one',
  EPERM:
    'the file may be immutable (lsattr), this process lacks the privilege, or a sandbox (seccomp) forbids the call',
  ESTALE: 'the folder was moved or replaced while it was used: try again',
  EROFS: 'the file system is mounted read-only, or this subvolume is (btrfs property set PATH ro false)',
  EUCLEAN: 'the file system is damaged: unmount and check it',
};

/** Undefined for a code whose name says enough. */
export function adviceOf(code: string, syscall: string): string | undefined {
  if (code === 'EAGAIN' && syscall.startsWith('spawn')) return NO_PROCESS;
  if (code === 'EACCES' && syscall === 'fcntl(F_SETLEASE)') return NOT_TOLD;
  if (code === 'EINVAL' && syscall === 'fchown') return NOT_MAPPED;
  return ADVICE[code];
}
