// What the floor programs share: a clock, an exit with a reason, and the loop that takes samples on request.
//
// A floor is the same system calls that the library makes, from C, in a loop, on the calling thread: nothing that hands
// a VM its clone can be quicker. A program reads one number a line from standard input, takes that many samples, and
// answers with one line of JSON: {"measure":"slot","ns":[75012,74810]}. So whoever runs it can take turns with others
// between two samples.
#ifndef FLOOR_H
#define FLOOR_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void fail(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

// For system calls: the result, or the end of the program.
static inline int must(int result, const char *what) {
  if (result < 0) fail(what);
  return result;
}

static inline int open_folder(const char *path) {
  return must(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), path);
}

static inline void serve(const char *measure, uint64_t (*sample_ns)(void)) {
  char line[32];
  while (fgets(line, sizeof line, stdin) != NULL) {
    const long count = strtol(line, NULL, 10);
    printf("{\"measure\":\"%s\",\"ns\":[", measure);
    for (long i = 0; i < count; i++) printf("%s%llu", i == 0 ? "" : ",", (unsigned long long)sample_ns());
    printf("]}\n");
    fflush(stdout);
  }
}

#endif
