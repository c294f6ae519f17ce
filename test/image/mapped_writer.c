// Keeps writing to the last byte of a file through a mapping, as a VMM does to its guest's memory.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int count, char **args) {
  int fd = count == 2 ? open(args[1], O_RDWR) : -1;
  struct stat status;
  if (fd < 0 || fstat(fd, &status) < 0) return 1;
  volatile char *bytes = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) return 1;
  for (char next = 1;; next++) {
    bytes[status.st_size - 1] = next;
    if (next == 1) puts("ready"), fflush(stdout);
    usleep(200);
  }
}
