// The floor of a clone alone: open the template, create the file, FICLONE, close both.
// clone TEMPLATE FOLDER
#include "floor.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

static const char *template_path;
static int folder_fd;
static unsigned long next;

static uint64_t sample_ns(void) {
  char name[32];
  snprintf(name, sizeof name, "clone-%lu", next++);
  const uint64_t start = now_ns();
  const int from = must(open(template_path, O_RDONLY | O_CLOEXEC), "open template");
  const int to = must(openat(folder_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), "open clone");
  must(ioctl(to, FICLONE, from), "FICLONE");
  close(to);
  close(from);
  return now_ns() - start;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  template_path = argv[1];
  folder_fd = open_folder(argv[2]);
  serve("clone", sample_ns);
  return 0;
}
