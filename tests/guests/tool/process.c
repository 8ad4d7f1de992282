/* What is no file: arguments, environment, streams, clocks, memory, ways to end. */
#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int exit_(int argc, char **argv) {
    fflush(stdout);
    exit(atoi(argv[1]));
}
static int trap(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "unreachable";
    fflush(stdout);
    if (!strcmp(kind, "memory")) return *(volatile int *)0xfffffff0u;
    if (!strcmp(kind, "divide")) {
        volatile int zero = 0, one = 1;
        return one / zero;
    }
    if (!strcmp(kind, "call")) return ((int (*)(void))0x7ffffff)();
    __builtin_trap();
}
static int env(int argc, char **argv) {
    for (char **e = environ; e && *e; e++) puts(*e);
    return 0;
}
static int args(int argc, char **argv) {
    for (int i = 1; i < argc; i++) puts(argv[i]);
    return 0;
}

/* Standard input to standard output until it ends. */
static int echo(int argc, char **argv) {
    static char buffer[65536];
    long n;
    while ((n = read(0, buffer, sizeof buffer)) > 0) write(1, buffer, (size_t)n);
    return n < 0 ? say("echo", -1) : 0;
}
/* Blocks until a byte of standard input comes, or its end: lets a test hold a guest at a known point. */
static int wait_stdin(int argc, char **argv) {
    char byte;
    fflush(stdout);
    long n = read(0, &byte, 1);
    printf("wait-stdin: %s\n", n < 0 ? errno_name(errno) : n ? "ok byte" : "ok end");
    return n < 0;
}

static int print_to(int fd, char **argv) {
    unsigned long n = unescape(argv[1]);
    return write(fd, argv[1], n) < 0;
}
static int print(int argc, char **argv) { return print_to(1, argv); }
static int print_err(int argc, char **argv) { return print_to(2, argv); }

/* N MiB of `y\n` to the descriptor; 0 for ever. */
static int flood_to(int fd, char **argv) {
    static char lines[65536];
    for (unsigned i = 0; i < sizeof lines; i++) lines[i] = i & 1 ? '\n' : 'y';
    long long want = atoll(argv[1]) << 20, done = 0;
    long n = 1;
    for (; (!want || done < want) && n > 0; done += n) n = write(fd, lines, sizeof lines);
    if (n <= 0) fprintf(stderr, "%s: %s\n", argv[0], errno_name(errno));
    return n <= 0;
}
static int flood(int argc, char **argv) { return flood_to(1, argv); }
static int flood_err(int argc, char **argv) { return flood_to(2, argv); }

static int spin(int argc, char **argv) {
    uint64_t until = argc > 1 ? now_ns() + strtoull(argv[1], 0, 10) * 1000000u : 0;
    volatile uint64_t turns = 0;
    do turns++;
    while (!until || (turns & 0xfff) || now_ns() < until);
    puts("spin: ok");
    return 0;
}
static int sleep_(int argc, char **argv) {
    long ms = atol(argv[1]);
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
    fflush(stdout);
    return say("sleep", nanosleep(&t, 0));
}
static int yield_(int argc, char **argv) {
    for (long n = atol(argv[1]); n > 0; n--) usleep(0);
    return say("yield", 0);
}
static int poll_(int argc, char **argv) {
    struct pollfd in = {0, POLLIN, 0};
    int n = poll(&in, 1, atoi(argv[1]));
    if (n < 0) return say("poll", -1);
    printf("poll: ok %s\n", n ? "readable" : "timeout");
    return 0;
}

/* Grows memory a MiB at a time, touching each page; says how far it came and lives on. */
static int grow(int argc, char **argv) {
    unsigned long want = strtoul(argv[1], 0, 10), got = 0;
    for (; got < want; got++) {
        unsigned long page = __builtin_wasm_memory_grow(0, 16);
        if (page == (unsigned long)-1) break;
        volatile char *at = (volatile char *)(page << 16);
        for (unsigned long i = 0; i < 1 << 20; i += 4096) at[i] = 1;
    }
    printf("grow: %s %lu MiB\n", got < want ? "refused after" : "ok", got);
    return got < want;
}
static int malloc_(int argc, char **argv) {
    unsigned long want = strtoul(argv[1], 0, 10), got = 0;
    for (; got < want; got++) {
        char *block = malloc(1 << 20);
        if (!block) break;
        memset(block, 1, 1 << 20);
    }
    printf("malloc: %s %lu MiB\n", got < want ? "refused after" : "ok", got);
    return got < want;
}

static unsigned long depth_reached;
static __attribute__((noinline)) unsigned long deeper(unsigned long n, volatile unsigned long *above) {
    volatile unsigned long here = *above + 1;
    depth_reached = here;
    return n ? deeper(n - 1, &here) + here : here;
}
static int recurse(int argc, char **argv) {
    volatile unsigned long start = 0;
    deeper(strtoul(argv[1], 0, 10), &start);
    printf("recurse: ok %lu\n", depth_reached);
    return 0;
}

static int clocks(int argc, char **argv) {
    struct timespec wall, resolution;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_getres(CLOCK_MONOTONIC, &resolution);
    printf("clock: ok realtime_s=%lld monotonic_ns=%llu resolution_ns=%ld\n", (long long)wall.tv_sec,
           (unsigned long long)now_ns(), resolution.tv_nsec);
    return 0;
}
static int random_(int argc, char **argv) {
    unsigned char bytes[256];
    size_t n = argc > 1 ? (size_t)atol(argv[1]) : 16;
    if (n > sizeof bytes || getentropy(bytes, n)) return say("random", -1);
    for (size_t i = 0; i < n; i++) printf("%02x", bytes[i]);
    puts("");
    return 0;
}

const struct command process_commands[] = {
    {"exit", "CODE", 1, exit_},
    {"trap", "[unreachable|memory|divide|call]", 0, trap},
    {"env", "", 0, env},
    {"args", "ARGS...", 0, args},
    {"echo", "  standard input to standard output", 0, echo},
    {"wait-stdin", "  blocks for a byte of standard input or its end", 0, wait_stdin},
    {"print", "ESCAPED   to standard output", 1, print},
    {"print-err", "ESCAPED", 1, print_err},
    {"flood", "MIB   of lines to standard output; 0 for ever", 1, flood},
    {"flood-err", "MIB", 1, flood_err},
    {"spin", "[MS]   for ever without", 0, spin},
    {"sleep", "MS", 1, sleep_},
    {"yield", "N", 1, yield_},
    {"poll", "MS   for standard input", 1, poll_},
    {"grow", "MIB   memory.grow, each page touched", 1, grow},
    {"malloc", "MIB", 1, malloc_},
    {"recurse", "DEPTH", 1, recurse},
    {"clock", "", 0, clocks},
    {"random", "[BYTES]", 0, random_},
    {0},
};
