/* A network path between two network namespaces: rate, delay, loss and a bounded queue, packet by packet.
 *
 *     tunlink RATE DELAY_US LOSS_PPM QUEUE_BYTES SEED MTU NEAR_ADDRESS FAR_ADDRESS
 *
 * Makes two unnamed namespaces with one TUN device each, prints "ready NEAR_FD FAR_FD" (files of this process
 * that stand for the namespaces: /proc/PID/fd/N), and carries packets until its standard input closes. Then it
 * prints what it did as JSON. Namespaces without a name and devices without a process vanish by themselves, so
 * nothing is left behind however this ends.
 *
 * Each direction is a line that sends one packet after the other at RATE bytes a second (0: at once), then a
 * pipe that takes DELAY_US. What would make more than QUEUE_BYTES wait for the line is dropped, as a router
 * drops it; LOSS_PPM of what was sent is lost on the way, by a generator that starts from SEED.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, DEVICE_QUEUE = 10000 };

static const int64_t SECOND = 1000000000;

struct packet { /* in the ring, followed by its bytes */
    int64_t due;
    uint32_t length;
    uint32_t step; /* bytes to the next one; 0: go on at the ring's start */
};

struct line {
    int in, out;
    char *ring;
    size_t size, head, tail, held; /* bytes; `held` counts what is between head and tail */
    int64_t free_at;               /* when the line has sent everything */
    uint64_t random;
    uint64_t packets, bytes, lost, dropped;
};

static double rate;
static int64_t delay;
static uint64_t loss_ppm, queue_bytes;
static int mtu;

static void fail(const char *what)
{
    fprintf(stderr, "tunlink: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static void configure(int s, const char *name, const char *address)
{
    struct ifreq r = {0};
    struct sockaddr_in a = {.sin_family = AF_INET};
    strncpy(r.ifr_name, name, IFNAMSIZ - 1);
    if (address) {
        inet_pton(AF_INET, address, &a.sin_addr);
        memcpy(&r.ifr_addr, &a, sizeof a);
        if (ioctl(s, SIOCSIFADDR, &r)) fail("address");
        a.sin_addr.s_addr = htonl(0xffffff00);
        memcpy(&r.ifr_netmask, &a, sizeof a);
        if (ioctl(s, SIOCSIFNETMASK, &r)) fail("netmask");
        r.ifr_qlen = DEVICE_QUEUE; /* drops happen in our queue, not in the device's */
        if (ioctl(s, SIOCSIFTXQLEN, &r)) fail("txqueuelen");
        r.ifr_mtu = mtu;
        if (ioctl(s, SIOCSIFMTU, &r)) fail("mtu");
    }
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(s, SIOCSIFFLAGS, &r)) fail("up");
}

/* Let devices made from now on be without IPv6, whose own chatter would be packets of ours. */
static void no_ipv6(void)
{
    int f = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);
    if (f < 0) return; /* a kernel without it */
    if (write(f, "1", 1) != 1) fail("disable_ipv6");
    close(f);
}

/* Make a namespace with a device in it; the caller is in it afterwards. */
static int make_end(const char *address, int *namespace)
{
    struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int device, s;
    if (unshare(CLONE_NEWNET)) fail("unshare");
    if ((*namespace = open("/proc/self/ns/net", O_RDONLY)) < 0) fail("namespace");
    no_ipv6();
    if ((device = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0) fail("/dev/net/tun");
    strcpy(r.ifr_name, "wan0");
    if (ioctl(device, TUNSETIFF, &r)) fail("TUNSETIFF");
    if ((s = socket(AF_INET, SOCK_DGRAM, 0)) < 0) fail("socket");
    configure(s, "lo", NULL);
    configure(s, "wan0", address);
    close(s);
    return device;
}

static uint64_t draw(struct line *l) /* xorshift64*, Vigna 2016 */
{
    l->random ^= l->random >> 12;
    l->random ^= l->random << 25;
    l->random ^= l->random >> 27;
    return l->random * 2685821657736338717ULL;
}

/* Find room for a packet, or NULL if the pipe is as full as it can get. */
static struct packet *room(struct line *l, size_t step)
{
    size_t end = l->size - l->tail;
    int wrap = end < step + sizeof(struct packet);
    if (l->held + step + (wrap ? end : 0) > l->size - sizeof(struct packet)) return NULL;
    if (wrap) {
        ((struct packet *)(l->ring + l->tail))->step = 0;
        l->held += end;
        l->tail = 0;
    }
    struct packet *p = (struct packet *)(l->ring + l->tail);
    l->tail += step;
    l->held += step;
    return p;
}

static void take(struct line *l, const char *data, size_t length, int64_t t)
{
    int64_t start = l->free_at > t ? l->free_at : t;
    size_t step = (sizeof(struct packet) + length + 7) & ~(size_t)7;
    struct packet *p;
    l->packets++;
    if (rate > 0 && (start - t) * rate / SECOND + length > queue_bytes) {
        l->dropped++;
        return;
    }
    l->free_at = rate > 0 ? start + (int64_t)(length * SECOND / rate) : t;
    if (draw(l) % 1000000 < loss_ppm) {
        l->lost++;
        return;
    }
    if (!(p = room(l, step))) {
        l->dropped++;
        return;
    }
    *p = (struct packet){.due = l->free_at + delay, .length = length, .step = step};
    memcpy(p + 1, data, length);
    l->bytes += length;
}

/* Hand on what is due; return when the next one is, or -1. */
static int64_t deliver(struct line *l)
{
    int64_t t = now();
    while (l->held) {
        struct packet *p = (struct packet *)(l->ring + l->head);
        if (!p->step) {
            l->held -= l->size - l->head;
            l->head = 0;
            continue;
        }
        if (p->due > t) return p->due;
        if (write(l->out, p + 1, p->length) < 0 && errno != EAGAIN && errno != EIO) fail("write");
        l->held -= p->step;
        l->head += p->step;
    }
    return -1;
}

static void receive(struct line *l)
{
    static char data[65536];
    for (int i = 0; i < BATCH; i++) {
        ssize_t n = read(l->in, data, sizeof data);
        if (n < 0) {
            if (errno == EAGAIN || errno == EINTR) return;
            fail("read");
        }
        take(l, data, n, now());
    }
}

static void carry(struct line *lines)
{
    struct pollfd fds[3] = {
        {.fd = lines[0].in, .events = POLLIN}, {.fd = lines[1].in, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    while (!fds[2].revents) {
        int64_t a = deliver(&lines[0]), b = deliver(&lines[1]);
        int64_t next = a < 0 || (b >= 0 && b < a) ? b : a, wait = next < 0 ? 0 : next - now();
        struct timespec t = {wait > 0 ? wait / SECOND : 0, wait > 0 ? wait % SECOND : 0};
        if (ppoll(fds, 3, next < 0 ? NULL : &t, NULL) < 0 && errno != EINTR) fail("poll");
        for (int i = 0; i < 2; i++)
            if (fds[i].revents) receive(&lines[i]);
    }
}

int main(int argc, char **argv)
{
    int namespaces[2], devices[2];
    struct line lines[2] = {{0}, {0}};
    if (argc != 9) {
        fprintf(stderr, "usage: tunlink RATE DELAY_US LOSS_PPM QUEUE_BYTES SEED MTU NEAR_ADDRESS FAR_ADDRESS\n");
        return 2;
    }
    rate = atof(argv[1]);
    delay = atoll(argv[2]) * 1000;
    loss_ppm = strtoull(argv[3], NULL, 10);
    queue_bytes = strtoull(argv[4], NULL, 10);
    mtu = atoi(argv[6]);
    for (int i = 0; i < 2; i++) devices[i] = make_end(argv[7 + i], &namespaces[i]);
    for (int i = 0; i < 2; i++) {
        struct line *l = &lines[i];
        l->in = devices[i];
        l->out = devices[1 - i];
        l->random = (strtoull(argv[5], NULL, 10) + 1) * 0x9e3779b97f4a7c15ULL + i;
        /* Room for the queue and what is on the way, headers of the smallest packets included. */
        l->size = (2 * (queue_bytes + (size_t)((rate > 0 ? rate : 1e9) * delay / SECOND)) + (4 << 20)) & ~(size_t)7;
        if (!(l->ring = malloc(l->size))) fail("memory");
    }
    printf("ready %d %d\n", namespaces[0], namespaces[1]);
    fflush(stdout);
    carry(lines);
    printf("[");
    for (int i = 0; i < 2; i++)
        printf("%s{\"packets\": %lu, \"bytes\": %lu, \"lost\": %lu, \"dropped\": %lu}", i ? ", " : "",
               lines[i].packets, lines[i].bytes, lines[i].lost, lines[i].dropped);
    printf("]\n");
    return 0;
}
