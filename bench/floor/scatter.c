// Makes a file of exactly EXTENTS extents of 4 KiB, next to each other in the file and nowhere near each other on the
// disk: what years of rewriting do to an image. A file of twice as many blocks is written block by block, so that each
// is an extent of its own on btrfs too, then every other block of it is reflinked into the new file, in shuffled order,
// and the first file goes.
//   scatter PATH EXTENTS
#include "floor.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

enum { BLOCK = 4096 };

static void write_donor(int fd, long blocks) {
  unsigned char *block = aligned_alloc(BLOCK, BLOCK);
  if (block == NULL) fail("aligned_alloc");
  for (long i = 0; i < blocks; i++) {
    memset(block, (int)(i % 251) + 1, BLOCK);
    if (pwrite(fd, block, BLOCK, i * BLOCK) != BLOCK) fail("pwrite");
  }
  free(block);
  must(fsync(fd), "fsync donor");
}

static long *shuffled(long count) {
  long *order = malloc((size_t)count * sizeof *order);
  if (order == NULL) fail("malloc");
  for (long i = 0; i < count; i++) order[i] = i;
  srand48(1);
  for (long i = count - 1; i > 0; i--) {
    const long j = lrand48() % (i + 1);
    const long kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  return order;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const long extents = strtol(argv[2], NULL, 10);
  char donor_path[4096];
  snprintf(donor_path, sizeof donor_path, "%s.donor", argv[1]);
  const int donor = must(open(donor_path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600), "open donor");
  write_donor(donor, 2 * extents);

  const int fd = must(open(argv[1], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644), argv[1]);
  must(ftruncate(fd, extents * BLOCK), "ftruncate");
  long *order = shuffled(extents);
  for (long i = 0; i < extents; i++) {
    const struct file_clone_range range = {
        .src_fd = donor, .src_offset = (uint64_t)order[i] * 2 * BLOCK, .src_length = BLOCK, .dest_offset = (uint64_t)i * BLOCK};
    must(ioctl(fd, FICLONERANGE, &range), "FICLONERANGE");
  }
  free(order);
  must(fsync(fd), "fsync");
  must(unlink(donor_path), "unlink donor");
  return 0;
}
