// The floor of a slot from a pool: the rename of a folder that was made before, among 64 of its kind.
// ready-slot TEMPLATE STAGING SLOTS
#include "slot.h"

enum { READY = 64 };

static struct slots slots;
static unsigned long made;
static unsigned long taken;

static void name_of(unsigned long number, char *name, size_t size) { snprintf(name, size, "ready-%lu", number); }

static uint64_t sample_ns(void) {
  char name[32];
  if (taken == made) {
    for (int i = 0; i < READY; i++) {
      name_of(made++, name, sizeof name);
      stage_slot(&slots, name);
    }
  }
  name_of(taken++, name, sizeof name);
  const uint64_t start = now_ns();
  publish_slot(&slots, name);
  return now_ns() - start;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  slots = open_slots(argv[1], argv[2], argv[3]);
  serve("ready-slot", sample_ns);
  return 0;
}
