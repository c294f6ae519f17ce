// For the test of the addon in a musl process: what Debian's libstdc++ and libgcc want of glibc and musl lacks.
// Preloaded by scripts/test-matrix.sh; on a musl distribution the libraries are built for musl and nothing of this is
// needed. Declares what it defines by itself, as the headers of glibc declare some of it otherwise.
#define EXPORT __attribute__((visibility("default")))

typedef struct locale *locale_t;
unsigned long strftime_l(char *, unsigned long, const char *, const void *, locale_t);
long syscall(long, ...);

EXPORT char __libc_single_threaded = 0;
EXPORT unsigned __cpu_model[4];
EXPORT int __cpu_indicator_init(void) { return 0; }

// "Not found": no exception can be thrown, and none is.
EXPORT int _dl_find_object(void *pc, void *result) { return (void)pc, (void)result, -1; }

EXPORT unsigned arc4random(void) {
  unsigned value = 0;
  syscall(318 /* getrandom on x86-64 */, &value, sizeof value, 0);
  return value;
}

// Destructors of thread-locals do not run.
EXPORT int __cxa_thread_atexit_impl(void (*function)(void *), void *object, void *dso) {
  return (void)function, (void)object, (void)dso, 0;
}

EXPORT unsigned long __strftime_l(char *to, unsigned long size, const char *format, const void *time, locale_t locale) {
  return strftime_l(to, size, format, time, locale);
}
