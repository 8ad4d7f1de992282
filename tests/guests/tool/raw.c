/* Preview 1 calls made directly, past libc's idea of a path: any bytes, any descriptor number. */
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wasi/api.h>

__attribute__((import_module("wasi_snapshot_preview1"), import_name("path_open"))) extern int32_t
raw_path_open(int32_t fd, int32_t lookup, const char *path, int32_t length, int32_t oflags, int64_t rights, int64_t inheriting,
              int32_t fdflags, int32_t *opened);
__attribute__((import_module("wasi_snapshot_preview1"), import_name("path_rename"))) extern int32_t
raw_path_rename(int32_t from_fd, const char *from, int32_t from_length, int32_t to_fd, const char *to, int32_t to_length);
__attribute__((import_module("wasi_snapshot_preview1"), import_name("path_symlink"))) extern int32_t
raw_path_symlink(const char *target, int32_t target_length, int32_t fd, const char *path, int32_t length);

static int report(const char *what, int code) {
    if (code) printf("%s: %s\n", what, errno_name(code));
    else printf("%s: ok\n", what);
    return code != 0;
}

/* path_open of escaped bytes beneath descriptor FD, for reading and listing; prints what can be read. */
static int raw_open(int argc, char **argv) {
    int32_t fd;
    char what[4200];
    snprintf(what, sizeof what, "raw-open %s %s", argv[1], argv[2]);
    unsigned long length = unescape(argv[2]);
    int code = raw_path_open(atoi(argv[1]), argc > 3 ? atoi(argv[3]) : 1, argv[2], (int32_t)length, argc > 4 ? atoi(argv[4]) : 0,
                             __WASI_RIGHTS_FD_READ | __WASI_RIGHTS_FD_READDIR, 0, 0, &fd);
    if (report(what, code)) return 1;
    char buffer[4096];
    long n = read(fd, buffer, sizeof buffer);
    fflush(stdout);
    if (n > 0) write(1, buffer, (size_t)n);
    close(fd);
    return 0;
}

static int raw_rename(int argc, char **argv) {
    char what[8400];
    snprintf(what, sizeof what, "raw-rename %s %s %s %s", argv[1], argv[2], argv[3], argv[4]);
    unsigned long from = unescape(argv[2]), to = unescape(argv[4]);
    return report(what, raw_path_rename(atoi(argv[1]), argv[2], (int32_t)from, atoi(argv[3]), argv[4], (int32_t)to));
}

static int raw_symlink(int argc, char **argv) {
    char what[8400];
    snprintf(what, sizeof what, "raw-symlink %s %s %s", argv[1], argv[2], argv[3]);
    unsigned long target = unescape(argv[1]), path = unescape(argv[3]);
    return report(what, raw_path_symlink(argv[1], (int32_t)target, atoi(argv[2]), argv[3], (int32_t)path));
}

/* Which descriptors exist, of which type and under which preopened name. */
static int descriptors(int argc, char **argv) {
    for (int fd = 0; fd < (argc > 1 ? atoi(argv[1]) : 64); fd++) {
        __wasi_fdstat_t stat;
        if (__wasi_fd_fdstat_get(fd, &stat)) continue;
        static const char *const types[] = {"unknown", "block", "char", "dir", "file", "dgram", "stream", "link"};
        printf("fd %d: %s flags=%x", fd, types[stat.fs_filetype & 7], stat.fs_flags);
        __wasi_prestat_t prestat;
        if (!__wasi_fd_prestat_get(fd, &prestat)) {
            char name[4096] = {0};
            size_t length = prestat.u.dir.pr_name_len < sizeof name - 1 ? prestat.u.dir.pr_name_len : sizeof name - 1;
            __wasi_fd_prestat_dir_name(fd, (uint8_t *)name, length);
            printf(" preopen=%s", name);
        }
        puts("");
    }
    return 0;
}

/* Out-of-bounds pointers given to the host must come back as errors, never as a crash of the host. */
static int bad_pointers(int argc, char **argv) {
    int32_t fd;
    int code = raw_path_open(3, 1, (const char *)0xffffff00u, 0x7fffffff, 0, 0, 0, 0, &fd);
    return report("bad-pointers", code);
}

static int sockets(int argc, char **argv) {
    int failed = 0;
    for (int fd = 0; fd < 8; fd++) {
        __wasi_fd_t accepted;
        size_t sent;
        __wasi_ciovec_t out = {(const uint8_t *)"x", 1};
        char what[64];
        snprintf(what, sizeof what, "sock_accept %d", fd);
        failed |= report(what, __wasi_sock_accept(fd, 0, &accepted));
        if (fd > 2) {
            snprintf(what, sizeof what, "sock_send %d", fd);
            failed |= report(what, __wasi_sock_send(fd, &out, 1, 0, &sent));
        }
    }
    return failed;
}

const struct command raw_commands[] = {
    {"raw-open", "FD ESCAPED-PATH [LOOKUPFLAGS] [OFLAGS]", 2, raw_open},
    {"raw-rename", "FD ESCAPED-PATH FD ESCAPED-PATH", 4, raw_rename},
    {"raw-symlink", "ESCAPED-TARGET FD ESCAPED-PATH", 3, raw_symlink},
    {"fds", "[HIGHEST]   every open descriptor, its type and preopened name", 0, descriptors},
    {"bad-pointers", "  a path beyond the end of memory", 0, bad_pointers},
    {"sockets", "  sock_accept and sock_send on the low descriptors", 0, sockets},
    {0},
};
