// The floor of many slots at once: two threads that make half of COUNT slots each. One sample is the time for all of
// them.
//   slots-two-threads TEMPLATE STAGING SLOTS COUNT
#include "slot.h"

#include <pthread.h>

enum { THREADS = 2 };

static struct slots slots;
static long count;
static unsigned long round_number;

static void *make_share(void *argument) {
  const long thread = (long)argument;
  char name[64];
  for (long i = thread; i < count; i += THREADS) {
    snprintf(name, sizeof name, "floor-%lu-%ld", round_number, i);
    stage_slot(&slots, name);
    publish_slot(&slots, name);
  }
  return NULL;
}

static uint64_t sample_ns(void) {
  pthread_t threads[THREADS];
  round_number++;
  const uint64_t start = now_ns();
  for (long t = 0; t < THREADS; t++) {
    errno = pthread_create(&threads[t], NULL, make_share, (void *)t);
    if (errno != 0) fail("pthread_create");
  }
  for (int t = 0; t < THREADS; t++) pthread_join(threads[t], NULL);
  return now_ns() - start;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  slots = open_slots(argv[1], argv[2], argv[3]);
  count = strtol(argv[4], NULL, 10);
  serve("slots-two-threads", sample_ns);
  return 0;
}
