/* Calls on files, by path and by descriptor. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char line[4200];

/* `COMMAND ARG`, the beginning of the line that say() prints. */
static const char *what(char **argv) {
    snprintf(line, sizeof line, "%s %s", argv[0], argv[1]);
    return line;
}

static int copy_out(int fd, int to) {
    static char buffer[65536];
    long n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        for (long done = 0; done < n;) {
            long m = write(to, buffer + done, (size_t)(n - done));
            if (m < 0) return -1;
            done += m;
        }
    return (int)n;
}

static int cat(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        int fd = open(argv[i], O_RDONLY);
        fflush(stdout);
        if (fd < 0 || copy_out(fd, 1) < 0) return say(what(argv), -1);
        close(fd);
    }
    return 0;
}

static int copy(int argc, char **argv) {
    int from = open(argv[1], O_RDONLY);
    if (from < 0) return say(what(argv), -1);
    int to = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int result = to < 0 ? -1 : copy_out(from, to);
    int code = say(what(argv), result);
    close(from), close(to);
    return code;
}

static int write_with(char **argv, int flags) {
    int fd = open(argv[1], O_WRONLY | flags, 0666);
    if (fd < 0) return say(what(argv), -1);
    unsigned long n = unescape(argv[2]);
    long result = write(fd, argv[2], n);
    int code = say(what(argv), result);
    close(fd);
    return code;
}

static int write_(int argc, char **argv) { return write_with(argv, O_CREAT | O_TRUNC); }
static int append(int argc, char **argv) { return write_with(argv, O_APPEND); }
static int overwrite(int argc, char **argv) { return write_with(argv, 0); }
static int create(int argc, char **argv) {
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_EXCL, 0666);
    int code = say(what(argv), fd);
    close(fd);
    return code;
}

/* Any combination: r w (both: rw), c creat, x excl, t trunc, a append, d directory, n nofollow, b nonblock, y sync. */
static int open_(int argc, char **argv) {
    int flags = 0, reads = !!strchr(argv[2], 'r'), writes = !!strchr(argv[2], 'w');
    flags |= reads && writes ? O_RDWR : writes ? O_WRONLY : reads ? O_RDONLY : 0;
    for (const char *c = argv[2]; *c; c++)
        flags |= *c == 'c' ? O_CREAT : *c == 'x' ? O_EXCL : *c == 't' ? O_TRUNC : *c == 'a' ? O_APPEND : *c == 'd' ? O_DIRECTORY
                 : *c == 'n' ? O_NOFOLLOW : *c == 'b' ? O_NONBLOCK : *c == 'y' ? O_SYNC : 0;
    int fd = open(argv[1], flags, 0666);
    int code = say(what(argv), fd);
    if (fd >= 0 && argc > 3 && !strcmp(argv[3], "read")) { /* was a stat-only descriptor turned into a read? */
        char byte[64];
        long n = read(fd, byte, sizeof byte);
        if (n < 0) printf("read %s: %s\n", argv[1], errno_name(errno));
        else printf("read %s: ok %ld bytes\n", argv[1], n);
        code |= n < 0;
    }
    if (fd >= 0 && argc > 3 && !strcmp(argv[3], "write")) code |= say("write", write(fd, "tool", 4));
    if (argc > 3 && !strcmp(argv[3], "keep")) return code;
    close(fd);
    return code;
}

/* Opens NAME relative to a descriptor of DIR. */
static int openat_(int argc, char **argv) {
    int dir = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (dir < 0) return say(what(argv), -1);
    int fd = openat(dir, argv[2], O_RDONLY);
    snprintf(line, sizeof line, "openat %s %s", argv[1], argv[2]);
    int code = say(line, fd);
    if (fd >= 0) fflush(stdout), copy_out(fd, 1), close(fd);
    close(dir);
    return code;
}

static int stat_with(char **argv, int result, const struct stat *s) {
    if (result < 0) return say(what(argv), -1);
    const char *type = S_ISREG(s->st_mode) ? "file" : S_ISDIR(s->st_mode) ? "dir" : S_ISLNK(s->st_mode) ? "link" : S_ISCHR(s->st_mode) ? "char" : "other";
    printf("%s %s: ok type=%s size=%lld nlink=%llu mtime_s=%lld\n", argv[0], argv[1], type, (long long)s->st_size,
           (unsigned long long)s->st_nlink, (long long)s->st_mtim.tv_sec);
    return 0;
}
static int stat_(int argc, char **argv) {
    struct stat s;
    return stat_with(argv, stat(argv[1], &s), &s);
}
static int lstat_(int argc, char **argv) {
    struct stat s;
    return stat_with(argv, lstat(argv[1], &s), &s);
}
static int fstat_(int argc, char **argv) {
    struct stat s;
    int fd = open(argv[1], O_RDONLY);
    int code = stat_with(argv, fd < 0 ? -1 : fstat(fd, &s), &s);
    close(fd);
    return code;
}
static int access_(int argc, char **argv) {
    int mode = 0;
    for (const char *c = argc > 2 ? argv[2] : ""; *c; c++) mode |= *c == 'r' ? R_OK : *c == 'w' ? W_OK : *c == 'x' ? X_OK : 0;
    return say(what(argv), access(argv[1], mode));
}

/* Opens for writing (or as `r`: for reading, where the call must fail) and makes one call on the descriptor. */
static int on_descriptor(char **argv, const char *mode, long (*call)(int, char **)) {
    int fd = open(argv[1], *mode == 'r' ? O_RDONLY : O_WRONLY);
    if (fd < 0) return say(what(argv), -1);
    int code = say(what(argv), call(fd, argv));
    close(fd);
    return code;
}
static long call_truncate(int fd, char **argv) { return ftruncate(fd, atoll(argv[2])); }
static long call_allocate(int fd, char **argv) {
    int error = posix_fallocate(fd, 0, atoll(argv[2]));
    return error ? (errno = error, -1) : 0;
}
static long call_sync(int fd, char **argv) { return fsync(fd); }
static long call_datasync(int fd, char **argv) { return fdatasync(fd); }
static long call_advise(int fd, char **argv) {
    int error = posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return error ? (errno = error, -1) : 0;
}
static long call_times(int fd, char **argv) {
    struct timespec t[2] = {{atoll(argv[2]), 0}, {atoll(argv[2]), 0}};
    return futimens(fd, t);
}
static long call_nonblock(int fd, char **argv) { return fcntl(fd, F_SETFL, O_NONBLOCK); }
static int trunc_(int argc, char **argv) { return on_descriptor(argv, argc > 3 ? argv[3] : "w", call_truncate); }
static int allocate(int argc, char **argv) { return on_descriptor(argv, argc > 3 ? argv[3] : "w", call_allocate); }
static int sync_(int argc, char **argv) { return on_descriptor(argv, argc > 2 ? argv[2] : "w", call_sync); }
static int datasync(int argc, char **argv) { return on_descriptor(argv, argc > 2 ? argv[2] : "w", call_datasync); }
static int advise(int argc, char **argv) { return on_descriptor(argv, "r", call_advise); }
static int ftimes(int argc, char **argv) { return on_descriptor(argv, argc > 3 ? argv[3] : "w", call_times); }
static int nonblock(int argc, char **argv) { return on_descriptor(argv, "r", call_nonblock); }

static int times(int argc, char **argv) {
    struct timespec t[2] = {{atoll(argv[2]), 0}, {atoll(argv[2]), 0}};
    return say(what(argv), utimensat(AT_FDCWD, argv[1], t, argc > 3 ? AT_SYMLINK_NOFOLLOW : 0));
}

/* Writes N MiB of zeros; says how many bytes went in. */
static int fill(int argc, char **argv) {
    static char zeros[65536];
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0) return say(what(argv), -1);
    long long want = atoll(argv[2]) << 20, done = 0;
    long n = 0;
    while (done < want && (n = write(fd, zeros, sizeof zeros)) > 0) done += n;
    if (n < 0) printf("fill %s: %s after %lld bytes\n", argv[1], errno_name(errno), done);
    else printf("fill %s: ok %lld bytes\n", argv[1], done);
    close(fd);
    return n < 0;
}

/* Opens the file N times without closing; says how many opened. */
static int opens(int argc, char **argv) {
    long want = atol(argv[2]), n = 0;
    while (n < want && open(argv[1], O_RDONLY) >= 0) n++;
    if (n < want) printf("opens %s: %s after %ld\n", argv[1], errno_name(errno), n);
    else printf("opens %s: ok %ld\n", argv[1], n);
    return n < want;
}

const struct command file_commands[] = {
    {"cat", "FILE...", 1, cat},
    {"copy", "FROM TO", 2, copy},
    {"write", "FILE TEXT   create or empty it, then write", 2, write_},
    {"append", "FILE TEXT", 2, append},
    {"overwrite", "FILE TEXT   from the start, neither creating nor emptying", 2, overwrite},
    {"creat", "FILE   must not exist", 1, create},
    {"open", "FILE FLAGS(rwcxtadnby) [read|write|keep]", 2, open_},
    {"openat", "DIR NAME   relative to an opened directory; prints the file", 2, openat_},
    {"stat", "PATH", 1, stat_},
    {"lstat", "PATH", 1, lstat_},
    {"fstat", "PATH", 1, fstat_},
    {"access", "PATH [rwx]", 1, access_},
    {"trunc", "FILE BYTES [r]   ftruncate, on a descriptor opened for writing (r: reading)", 2, trunc_},
    {"fallocate", "FILE BYTES [r]", 2, allocate},
    {"fsync", "FILE [r]", 1, sync_},
    {"fdatasync", "FILE [r]", 1, datasync},
    {"fadvise", "FILE", 1, advise},
    {"futimes", "FILE SECONDS [r]", 2, ftimes},
    {"nonblock", "FILE   sets O_NONBLOCK", 1, nonblock},
    {"utimes", "PATH SECONDS [nofollow]", 2, times},
    {"fill", "FILE MIB", 2, fill},
    {"opens", "FILE N   keeps them open", 2, opens},
    {0},
};
