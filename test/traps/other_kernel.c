// Preloaded into a process, it makes the kernel look like another: one before Linux 5.8, which does not tell what is
// mounted where (OLD_STATX), one whose first FICLONEs fail (FICLONE_ERRNO, FICLONE_FAILURES), one with ZFS on all disks
// (ZFS), a sandbox that refuses FIEMAP (FIEMAP_ERRNO), or renameat2 and syncfs (NEW_CALLS_ERRNO), or a file system that
// lists an attribute and does not give it (ATTRIBUTE, ATTRIBUTE_ERRNO), or, as FAT, one on which no file has two names
// (LINK_ERRNO) or none (O_TMPFILE).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#define MOUNT_ROOT 0x2000ULL

static int refuses(const char *setting) {
  const char *code = getenv(setting);
  if (code != NULL) errno = atoi(code);
  return code != NULL;
}

int syncfs(int fd) {
  if (refuses("NEW_CALLS_ERRNO")) return -1;
  int (*next)(int) = dlsym(RTLD_NEXT, "syncfs");
  return next(fd);
}

long syscall(long number, ...) {
  va_list list;
  long args[6];
  va_start(list, number);
  for (int i = 0; i < 6; i++) args[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_renameat2 && refuses("NEW_CALLS_ERRNO")) return -1;
  long (*next)(long, ...) = dlsym(RTLD_NEXT, "syscall");
  long result = next(number, args[0], args[1], args[2], args[3], args[4], args[5]);
  if (number == SYS_statx && result == 0 && getenv("OLD_STATX") != NULL) {
    struct statx *status = (struct statx *)args[4];
    status->stx_attributes &= ~MOUNT_ROOT;
    status->stx_attributes_mask &= ~MOUNT_ROOT;
  }
  return result;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
  if (refuses("LINK_ERRNO")) return -1;
  int (*next)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
  return next(from_fd, from, to_fd, to, flags);
}

int openat(int fd, const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  unsigned mode = va_arg(list, unsigned);
  va_end(list);
  if ((flags & O_TMPFILE) == O_TMPFILE && getenv("LINK_ERRNO") != NULL) {
    errno = EOPNOTSUPP;
    return -1;
  }
  int (*next)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
  return next(fd, path, flags, mode);
}

int fstatfs(int fd, struct statfs *info) {
  int (*next)(int, struct statfs *) = dlsym(RTLD_NEXT, "fstatfs");
  int result = next(fd, info);
  if (getenv("ZFS") != NULL) info->f_type = 0x2FC12FC1;
  return result;
}

int ioctl(int fd, unsigned long request, ...) {
  static int failed = 0;
  va_list list;
  va_start(list, request);
  long arg = va_arg(list, long);
  va_end(list);
  const char *failures = getenv("FICLONE_FAILURES");
  int reflinks = request == FICLONE || (request == FICLONERANGE && getenv("ZFS") != NULL);
  if (reflinks && failures != NULL && failed < atoi(failures)) {
    failed++;
    errno = atoi(getenv("FICLONE_ERRNO"));
    return -1;
  }
  if (request == FS_IOC_FIEMAP && refuses("FIEMAP_ERRNO")) return -1;
  int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
  return next(fd, request, arg);
}

ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size) {
  const char *kept = getenv("ATTRIBUTE");
  if (kept != NULL && strcmp(name, kept) == 0) {
    errno = atoi(getenv("ATTRIBUTE_ERRNO"));
    return -1;
  }
  ssize_t (*next)(const char *, const char *, void *, size_t) = dlsym(RTLD_NEXT, "lgetxattr");
  return next(path, name, value, size);
}
