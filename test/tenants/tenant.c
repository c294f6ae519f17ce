// A hostile VMM: with the rights of the user who owns a VM's image, it changes, links, exchanges, truncates and locks
// all that it can reach, until it is killed. It prints a line that starts with BREACH for each thing of somebody else's
// that it got hold of.
//
//   tenant SEED IMAGE IMAGE_BYTES OWN CLONES TEMPLATES SECRET OTHER_SLOT...
//
// IMAGE is the image of its slot, OWN a folder of its own: root exports the image to OWN/jail/rootfs.ext4 and snapshots
// OWN/memory with it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static uint32_t state;
static uint32_t below(uint32_t bound) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % bound;
}

static const char *image, *own, *clones, *templates, *secret, **others;
static off_t image_bytes;
static int other_count;

static char *path_of(const char *folder, const char *name) {
  static char paths[8][4096];
  static int next;
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}
static char *in_own(const char *name) { return path_of(own, name); }
static const char *other_slot(void) { return others[below(other_count)]; }

static void breach(const char *what, const char *path) {
  printf("BREACH: %s %s\n", what, path);
  fflush(stdout);
}

static void rest(uint32_t at_most_us) { usleep(below(at_most_us + 1)); }
static void hold(void) {
  uint32_t dice = below(100);
  rest(dice < 80 ? 2000 : dice < 98 ? 100000 : 2000000);
}

static int any_image(int flags) {
  const char *path = below(3) == 0 ? in_own("jail/rootfs.ext4") : image;
  return open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
}

static void change_bytes(int fd) {
  unsigned char bytes[1024];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)below(256);
  if (pwrite(fd, bytes, sizeof bytes, below(2) ? 1024 : below(1 << 20)) < 0) return;
}

static void change_length(int fd) {
  static const int64_t lengths[] = {0, 1, 4096, (int64_t)1 << 40, (int64_t)1 << 50, INT64_MAX};
  uint32_t which = below(9);
  if (ftruncate(fd, which < 6 ? lengths[which] : which == 6 ? image_bytes + 4096 : image_bytes) < 0) return;
}

// As fast as it can, between two lengths.
static void keep_changing_length(int fd) {
  for (int i = 0; i < 2000; i++)
    if (ftruncate(fd, i % 2 ? image_bytes : image_bytes + 4096 * (1 + below(8))) < 0) return;
}

static void change_attributes(int fd) {
  static const mode_t modes[] = {0, 0600, 0666, 04777, 02755, 0400};
  struct fsxattr attributes;
  int flags;
  switch (below(6)) {
    case 0: (void)!fchmod(fd, modes[below(6)]); break;
    case 1: (void)!futimens(fd, (struct timespec[2]){{below(1 << 30), 0}, {below(1 << 30), 0}}); break;
    case 2: (void)!fsetxattr(fd, "user.hostile", &state, sizeof state, 0); break;
    case 3:
      if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0) {
        attributes.fsx_projid = below(1000);
        (void)!ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
      }
      break;
    case 4:
      if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags ^= below(2) ? FS_NODUMP_FL : FS_NOATIME_FL;
        (void)!ioctl(fd, FS_IOC_SETFLAGS, &flags);
      }
      break;
    default: (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20); break;
  }
}

static void lock_things(int fd) {
  struct flock range = {.l_type = F_WRLCK};
  int folder;
  switch (below(5)) {
    case 0:
      if (flock(fd, LOCK_EX | LOCK_NB) == 0) hold();
      break;
    case 1:
      if (fcntl(fd, F_OFD_SETLK, &range) == 0) hold();
      break;
    case 2:
      if (fcntl(fd, F_SETLEASE, below(2) ? F_WRLCK : F_RDLCK) == 0) hold();
      break;
    default: {
      static const char *const folders[] = {"", "/.microvm-rootfs", "/.microvm-rootfs/snapshots"};
      char path[4096];
      if (below(2)) {
        snprintf(path, sizeof path, "%s", image);
        *strrchr(path, '/') = 0;
      } else
        snprintf(path, sizeof path, "%s%s", below(2) ? clones : templates, folders[below(3)]);
      folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (folder < 0) break;
      if (flock(folder, (below(2) ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) hold();
      close(folder);
    }
  }
}

static void work_on_image(void) {
  int fd = any_image(O_RDWR);
  if (fd < 0) {
    (void)!chmod(image, 0600);
    return;
  }
  switch (below(8)) {
    case 0: change_bytes(fd); break;
    case 1: change_length(fd); break;
    case 2: keep_changing_length(fd); break;
    case 3: change_attributes(fd); break;
    case 4: lock_things(fd); break;
    case 5: {
      void *bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      if (bytes == MAP_FAILED) break;
      struct stat now;
      // A store past the end would end us.
      if (fstat(fd, &now) == 0 && now.st_size >= 4096) ((volatile char *)bytes)[below(4096)] = 1;
      hold();
      munmap(bytes, 4096);
      break;
    }
    case 6: (void)!ftruncate(fd, image_bytes); break;
    default: hold(); break;
  }
  close(fd);
}

static void link_image(void) {
  char *name = in_own("links/0");
  name[strlen(name) - 1] = (char)('0' + below(4));
  if (link(image, name) < 0) unlink(name);
  if (below(4) == 0) (void)!link(image, in_own("jail/rootfs.ext4"));
  if (below(4) == 0) (void)!link(image, in_own("memory"));
}

// What root is to read or to make in our folder is something else each time.
static void exchange_file(const char *name) {
  char *path = in_own(name), *made = in_own("made");
  unlink(made);
  int fd;
  switch (below(7)) {
    case 0: (void)!symlink(secret, made); break;
    case 1: (void)!symlink(path_of(other_slot(), "rootfs.ext4"), made); break;
    case 2: (void)!mkfifo(made, 0600); break;
    case 3: (void)!symlink("/dev/zero", made); break;
    case 4: unlink(path); return;
    case 5:
      fd = open(made, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
      if (fd < 0) return;
      (void)!ftruncate(fd, below(4) ? 65536 : (off_t)1 << 50);
      close(fd);
      break;
    default: (void)!link(image, made); break;
  }
  (void)!rename(made, path);
}

// The folder that root exports to becomes a link to another VM's slot, and back.
static void exchange_folder(void) {
  char *jail = in_own("jail"), *evil = in_own("evil");
  unlink(evil);
  switch (below(4)) {
    case 0: (void)!symlink(templates, evil); break;
    case 1: (void)!symlink(clones, evil); break;
    default: (void)!symlink(other_slot(), evil); break;
  }
  for (int i = below(400); i >= 0; i--) {
    (void)!renameat2(AT_FDCWD, jail, AT_FDCWD, evil, RENAME_EXCHANGE);
    if (below(8) == 0) rest(200);
  }
  struct stat now;
  if (lstat(jail, &now) == 0 && S_ISLNK(now.st_mode))
    (void)!renameat2(AT_FDCWD, jail, AT_FDCWD, evil, RENAME_EXCHANGE);
}

static void must_fail(int result, const char *what, const char *path) {
  if (result >= 0) breach(what, path);
}

// None of it may succeed.
static void try_others(void) {
  const char *slot = other_slot(), *disk = path_of(slot, "rootfs.ext4"), *stamp = path_of(slot, "rootfs.ext4.sha256");
  switch (below(12)) {
    case 0: must_fail(open(disk, O_RDWR | O_CLOEXEC), "opened for writing", disk); break;
    case 1: must_fail(open(disk, O_RDONLY | O_CLOEXEC), "read", disk); break;
    case 2: must_fail(unlink(disk), "removed", disk); break;
    case 3: must_fail(unlink(stamp), "removed", stamp); break;
    case 4: must_fail(rename(slot, path_of(clones, "taken")), "renamed", slot); break;
    case 5: must_fail(link(disk, in_own("stolen")), "linked", disk); break;
    case 6: must_fail(mkdir(path_of(clones, "hostile"), 0700), "made a slot in", clones); break;
    case 7: must_fail(open(secret, O_RDONLY | O_CLOEXEC), "read", secret); break;
    case 8: must_fail(chmod(slot, 0777), "opened to all", slot); break;
    case 9: must_fail(open(path_of(clones, ".microvm-rootfs"), O_RDONLY), "listed the state folder of", clones); break;
    case 10: must_fail(mkdir(path_of(templates, "hostile"), 0700), "made a stack in", templates); break;
    default: {
      const char *own_stamp = path_of(clones, strrchr(slot, '/') + 1);
      must_fail(chown(own_stamp, getuid(), getgid()), "took", own_stamp);
    }
  }
}

int main(int count, char **args) {
  if (count < 9) return 2;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGIO, SIG_IGN);  // a lease of ours is broken
  signal(SIGBUS, SIG_DFL);
  state = (uint32_t)strtoul(args[1], NULL, 10) | 1;
  image = args[2];
  image_bytes = (off_t)strtoll(args[3], NULL, 10);
  own = args[4];
  clones = args[5];
  templates = args[6];
  secret = args[7];
  others = (const char **)&args[8];
  other_count = count - 8;
  (void)!mkdir(in_own("jail"), 0700);
  (void)!mkdir(in_own("links"), 0700);
  for (;;) {
    uint32_t dice = below(100);
    if (dice < 45)
      work_on_image();
    else if (dice < 55)
      link_image();
    else if (dice < 65)
      exchange_file("memory");
    else if (dice < 72)
      exchange_file("jail/rootfs.ext4");
    else if (dice < 80)
      unlink(in_own("jail/rootfs.ext4"));
    else if (dice < 88)
      exchange_folder();
    else if (dice < 94)
      try_others();
    else
      rest(2000);
  }
}
