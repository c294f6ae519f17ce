// The floor of a whole slot: mkdir in staging, create, FICLONE, length check, fchmod, 64-byte stamp, rename of the
// folder.
//   slot TEMPLATE STAGING SLOTS
#include "slot.h"

static struct slots slots;
static unsigned long next;

static uint64_t sample_ns(void) {
  char name[32];
  snprintf(name, sizeof name, "floor-%lu", next++);
  const uint64_t start = now_ns();
  stage_slot(&slots, name);
  publish_slot(&slots, name);
  return now_ns() - start;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  slots = open_slots(argv[1], argv[2], argv[3]);
  serve("slot", sample_ns);
  return 0;
}
