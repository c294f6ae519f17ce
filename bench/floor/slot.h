// One slot, built in staging and published by a rename: the least that the library's guarantees can be had for.
#ifndef SLOT_H
#define SLOT_H

#include "floor.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define STAMP "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

struct slots {
  int template_fd;
  off_t template_size;
  int staging_fd;
  int slots_fd;
};

static inline struct slots open_slots(const char *template, const char *staging, const char *slots) {
  struct slots s = {.template_fd = must(open(template, O_RDONLY | O_CLOEXEC), template),
                    .staging_fd = open_folder(staging),
                    .slots_fd = open_folder(slots)};
  struct stat info;
  must(fstat(s.template_fd, &info), "fstat");
  s.template_size = info.st_size;
  return s;
}

static inline void clone_file(int template_fd, int folder_fd, const char *name, off_t size) {
  const int fd = must(openat(folder_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), "open clone");
  must(ioctl(fd, FICLONE, template_fd), "FICLONE");
  struct stat info;
  must(fstat(fd, &info), "fstat clone");
  if (info.st_size != size) {
    errno = EIO;
    fail("the clone is short");
  }
  must(fchmod(fd, 0600), "fchmod");
  close(fd);
}

static inline void stage_slot(const struct slots *s, const char *name) {
  must(mkdirat(s->staging_fd, name, 0755), "mkdir");
  const int folder = must(openat(s->staging_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open folder");
  clone_file(s->template_fd, folder, "rootfs.ext4", s->template_size);
  const int stamp = must(openat(folder, "rootfs.ext4.sha256", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644), "open stamp");
  if (write(stamp, STAMP, 64) != 64) fail("write stamp");
  close(stamp);
  close(folder);
}

static inline void publish_slot(const struct slots *s, const char *name) {
  must(renameat2(s->staging_fd, name, s->slots_fd, name, RENAME_NOREPLACE), "rename");
}

#endif
