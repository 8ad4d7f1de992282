/* What calls cost, measured by the guest: `NAME: p50_ns=... p99_ns=... n=...`, or bytes a second. */
#include "tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 100000 };
static uint64_t samples[MOST];

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int measure(char **argv, int (*step)(const char *)) {
    long n = atol(argv[2]);
    if (n < 1 || n > MOST) n = MOST;
    for (long i = 0; i < n; i++) {
        uint64_t start = now_ns();
        if (step(argv[1])) return say(argv[0], -1);
        samples[i] = now_ns() - start;
    }
    qsort(samples, (size_t)n, sizeof *samples, compare);
    printf("%s: p50_ns=%llu p99_ns=%llu n=%ld\n", argv[0], (unsigned long long)samples[n / 2],
           (unsigned long long)samples[n * 99 / 100], n);
    return 0;
}

static int step_open(const char *path) {
    int fd = open(path, O_RDONLY);
    return fd < 0 || close(fd);
}
static int step_stat(const char *path) {
    struct stat s;
    return stat(path, &s);
}
static int step_list(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return -1;
    while (readdir(dir)) {}
    return closedir(dir);
}
static int step_create(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    return fd < 0 || close(fd) || unlink(path);
}

static int bench_open(int argc, char **argv) { return measure(argv, step_open); }
static int bench_stat(int argc, char **argv) { return measure(argv, step_stat); }
static int bench_list(int argc, char **argv) { return measure(argv, step_list); }
static int bench_create(int argc, char **argv) { return measure(argv, step_create); }

/* Reads (or writes) the file N times from its start in blocks of 64 KiB. */
static int throughput(char **argv, int writes) {
    static char block[65536];
    int fd = open(argv[1], writes ? O_WRONLY | O_CREAT : O_RDONLY, 0666);
    if (fd < 0) return say(argv[0], -1);
    uint64_t bytes = 0, start = now_ns();
    for (long i = atol(argv[2]); i > 0; i--) {
        lseek(fd, 0, SEEK_SET);
        if (writes)
            for (int k = 0; k < 16; k++) bytes += (uint64_t)write(fd, block, sizeof block);
        else
            for (long n; (n = read(fd, block, sizeof block)) > 0;) bytes += (uint64_t)n;
    }
    uint64_t took = now_ns() - start;
    printf("%s: bytes=%llu ns=%llu ns_per_mib=%llu\n", argv[0], (unsigned long long)bytes, (unsigned long long)took,
           (unsigned long long)(bytes ? took * 1048576u / bytes : 0));
    close(fd);
    return 0;
}
static int bench_read(int argc, char **argv) { return throughput(argv, 0); }
static int bench_write(int argc, char **argv) { return throughput(argv, 1); }

static int bench_compute(int argc, char **argv) {
    uint64_t start = now_ns(), x = 88172645463325252u;
    for (long i = atol(argv[1]) * 1000000; i > 0; i--) x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    printf("bench-compute: ns=%llu result=%llu\n", (unsigned long long)(now_ns() - start), (unsigned long long)x);
    return 0;
}

const struct command bench_commands[] = {
    {"bench-open", "FILE N   an open and its close", 2, bench_open},
    {"bench-stat", "PATH N", 2, bench_stat},
    {"bench-ls", "DIR N", 2, bench_list},
    {"bench-create", "FILE N   create, close, unlink", 2, bench_create},
    {"bench-read", "FILE ROUNDS   of the whole file, 64 KiB a call", 2, bench_read},
    {"bench-write", "FILE ROUNDS   of 1 MiB, 64 KiB a call", 2, bench_write},
    {"bench-compute", "MILLIONS   of xorshift steps", 1, bench_compute},
    {0},
};
