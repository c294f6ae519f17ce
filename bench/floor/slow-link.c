// A link with a delay, for kernels without netem: packets go from a device here to one in a network namespace of its
// own, and back, and each waits on the way. A program runs at the far end. All of it vanishes with this program.
// slow-link DELAY_US ADDRESS FAR_ADDRESS PROGRAM ARGUMENTS...
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MTU = 1500, DEVICE_QUEUE = 20000, BURST = 256 };

// 400 MB: more than 10 Gbit/s send in the longest delay.
static const size_t QUEUE_LIMIT = 250000;

struct packet {
  struct packet *next;
  uint64_t due;
  size_t length;
  char bytes[];
};

// Packets on their way from one device to the other, in order.
struct line {
  int from, to;
  struct packet *first, **end;
  size_t count;
};

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void set(int socket, unsigned long request, struct ifreq *what, const char *name) {
  if (ioctl(socket, request, what) != 0) err(1, "%s", name);
}

static void set_address(int socket, struct ifreq *device, unsigned long request, const char *address) {
  struct sockaddr_in in = {.sin_family = AF_INET};
  if (inet_pton(AF_INET, address, &in.sin_addr) != 1) errx(1, "%s is no address", address);
  memcpy(&device->ifr_addr, &in, sizeof in);
  set(socket, request, device, "address of the device");
}

// In the network namespace that the caller is in.
static int open_device(const char *address) {
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) err(1, "/dev/net/tun");
  struct ifreq device = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  set(fd, TUNSETIFF, &device, "TUNSETIFF");
  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0) err(1, "socket");
  set_address(control, &device, SIOCSIFADDR, address);
  set_address(control, &device, SIOCSIFNETMASK, "255.255.255.252");
  device.ifr_mtu = MTU;
  set(control, SIOCSIFMTU, &device, "SIOCSIFMTU");
  device.ifr_qlen = DEVICE_QUEUE;
  set(control, SIOCSIFTXQLEN, &device, "SIOCSIFTXQLEN");
  device.ifr_flags = IFF_UP | IFF_RUNNING;
  set(control, SIOCSIFFLAGS, &device, "SIOCSIFFLAGS");
  close(control);
  return fd;
}

static void take(struct line *line, uint64_t delay_ns) {
  char bytes[MTU];
  for (int i = 0; i < BURST; i++) {
    const ssize_t length = read(line->from, bytes, sizeof bytes);
    if (length <= 0) return;
    if (line->count == QUEUE_LIMIT) continue; // lost, as on any link
    struct packet *packet = malloc(sizeof *packet + (size_t)length);
    if (packet == NULL) errx(1, "no memory");
    *packet = (struct packet){.due = now_ns() + delay_ns, .length = (size_t)length};
    memcpy(packet->bytes, bytes, (size_t)length);
    *line->end = packet;
    line->end = &packet->next;
    line->count++;
  }
}

static void give(struct line *line) {
  const uint64_t now = now_ns();
  while (line->first != NULL && line->first->due <= now) {
    struct packet *packet = line->first;
    if (write(line->to, packet->bytes, packet->length) < 0 && errno == EAGAIN) return;
    line->first = packet->next;
    if (line->first == NULL) line->end = &line->first;
    line->count--;
    free(packet);
  }
}

static pid_t start(char **program) {
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) err(1, "fork");
  if (child > 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  execvp(program[0], program);
  err(1, "%s", program[0]);
}

int main(int count, char **arguments) {
  if (count < 5) errx(2, "slow-link DELAY_US ADDRESS FAR_ADDRESS PROGRAM ARGUMENTS...");
  const uint64_t delay_ns = strtoull(arguments[1], NULL, 10) * 1000;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_TIMERSLACK, 1);
  const int here = open_device(arguments[2]);
  if (unshare(CLONE_NEWNET) != 0) err(1, "a network namespace");
  const int there = open_device(arguments[3]);
  const pid_t child = start(arguments + 4);

  struct line lines[2] = {{.from = here, .to = there}, {.from = there, .to = here}};
  struct pollfd polled[2];
  for (int i = 0; i < 2; i++) {
    lines[i].end = &lines[i].first;
    polled[i] = (struct pollfd){.fd = lines[i].from, .events = POLLIN};
  }
  while (waitpid(child, NULL, WNOHANG) == 0) {
    uint64_t wait_ns = 100000000;
    for (int i = 0; i < 2; i++) {
      if (lines[i].first == NULL) continue;
      const uint64_t now = now_ns();
      const uint64_t due = lines[i].first->due > now ? lines[i].first->due - now : 0;
      if (due < wait_ns) wait_ns = due;
    }
    ppoll(polled, 2, &(struct timespec){.tv_nsec = (long)wait_ns}, NULL);
    for (int i = 0; i < 2; i++) {
      take(&lines[i], delay_ns);
      give(&lines[i]);
    }
  }
  return 1;
}
