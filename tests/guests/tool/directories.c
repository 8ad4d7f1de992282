/* Calls on names: listing, making, removing, renaming, linking. */
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wasi/api.h>

static char line[8400];

static const char *one(char **argv) {
    snprintf(line, sizeof line, "%s %s", argv[0], argv[1]);
    return line;
}
static const char *two(char **argv) {
    snprintf(line, sizeof line, "%s %s %s", argv[0], argv[1], argv[2]);
    return line;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Sorted names without . and .. , a line each; a directory ends in /. */
static int list(int argc, char **argv) {
    DIR *dir = opendir(argc > 1 ? argv[1] : ".");
    if (!dir) return say(argc > 1 ? one(argv) : "ls .", -1);
    char **names = 0;
    size_t count = 0;
    errno = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *name = malloc(strlen(e->d_name) + 2);
        sprintf(name, "%s%s", e->d_name, e->d_type == DT_DIR ? "/" : "");
        names = realloc(names, (count + 1) * sizeof *names);
        names[count++] = name;
    }
    int failed = errno;
    if (count) qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) puts(names[i]);
    closedir(dir);
    if (failed) printf("ls: %s after %zu names\n", errno_name(failed), count);
    return failed != 0;
}

/* The raw call with a buffer of N bytes, continued from the cookie of the last whole entry; names in the order that they came. */
static int list_small(int argc, char **argv) {
    int fd = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (fd < 0) return say(one(argv), -1);
    size_t size = (size_t)atol(argv[2]), used;
    uint8_t *buffer = malloc(size);
    __wasi_dircookie_t cookie = 0;
    long calls = 0, names = 0;
    for (;;) {
        __wasi_errno_t error = __wasi_fd_readdir(fd, buffer, size, cookie, &used);
        calls++;
        if (error) {
            printf("ls-small %s: %s after %ld names\n", argv[1], errno_name(error), names);
            return 1;
        }
        size_t at = 0, whole = 0;
        while (at + sizeof(__wasi_dirent_t) <= used) {
            __wasi_dirent_t entry;
            memcpy(&entry, buffer + at, sizeof entry);
            if (at + sizeof entry + entry.d_namlen > used) break;
            const char *name = (const char *)buffer + at + sizeof entry;
            if (!(entry.d_namlen == 1 && name[0] == '.') && !(entry.d_namlen == 2 && name[0] == '.' && name[1] == '.'))
                printf("%.*s\n", (int)entry.d_namlen, name);
            at += sizeof entry + entry.d_namlen;
            cookie = entry.d_next;
            whole++, names++;
        }
        if (used < size) break;
        if (!whole) {
            printf("ls-small %s: the buffer holds no entry after %ld names\n", argv[1], names);
            return 1;
        }
    }
    printf("ls-small %s: ok %ld names %ld calls\n", argv[1], names, calls);
    close(fd);
    return 0;
}

/* Lists, rewinds, seeks to the middle; the second and third listing must agree with the first. */
static int list_again(int argc, char **argv) {
    DIR *dir = opendir(argv[1]);
    if (!dir) return say(one(argv), -1);
    char *names[4096];
    long places[4096], count = 0, middle, agree = 1;
    for (struct dirent *e; count < 4096 && (places[count] = telldir(dir), e = readdir(dir));) names[count++] = strdup(e->d_name);
    rewinddir(dir);
    for (long i = 0; i < count; i++) {
        struct dirent *e = readdir(dir);
        if (!e || strcmp(e->d_name, names[i])) agree = 0;
    }
    middle = count / 2;
    seekdir(dir, places[middle]);
    for (long i = middle; i < count; i++) {
        struct dirent *e = readdir(dir);
        if (!e || strcmp(e->d_name, names[i])) agree = 0;
    }
    if (readdir(dir)) agree = 0;
    closedir(dir);
    printf("ls-again %s: %s %ld entries\n", argv[1], agree ? "ok" : "DISAGREES", count);
    return !agree;
}

/* Names of all files beneath, to any depth, as the program sees them. */
static int tree(int argc, char **argv) {
    DIR *dir = opendir(argv[1]);
    if (!dir) return say(one(argv), -1);
    int code = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char path[4096], *below[3] = {argv[0], path, 0};
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        puts(path);
        if (e->d_type == DT_DIR) code |= tree(2, below);
    }
    closedir(dir);
    return code;
}

static int mkdir_(int argc, char **argv) { return say(one(argv), mkdir(argv[1], 0777)); }
static int rmdir_(int argc, char **argv) { return say(one(argv), rmdir(argv[1])); }
static int unlink_(int argc, char **argv) { return say(one(argv), unlink(argv[1])); }
static int rename_(int argc, char **argv) { return say(two(argv), rename(argv[1], argv[2])); }
static int link_(int argc, char **argv) { return say(two(argv), linkat(AT_FDCWD, argv[1], AT_FDCWD, argv[2], argc > 3 ? AT_SYMLINK_FOLLOW : 0)); }
static int symlink_(int argc, char **argv) { return say(two(argv), symlink(argv[1], argv[2])); }

static int readlink_(int argc, char **argv) {
    char target[4096];
    long n = readlink(argv[1], target, sizeof target);
    if (n < 0) return say(one(argv), -1);
    printf("%s: ok %.*s\n", one(argv), (int)n, target);
    return 0;
}

/* Makes N empty files f00000, f00001, ... in DIR. */
static int touch_many(int argc, char **argv) {
    long want = atol(argv[2]), n = 0;
    for (; n < want; n++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/f%05ld", argv[1], n);
        int fd = open(path, O_WRONLY | O_CREAT, 0666);
        if (fd < 0) break;
        close(fd);
    }
    if (n < want) printf("touch-many %s: %s after %ld\n", argv[1], errno_name(errno), n);
    else printf("touch-many %s: ok %ld\n", argv[1], n);
    return n < want;
}

const struct command directory_commands[] = {
    {"ls", "[DIR]   sorted names", 0, list},
    {"ls-small", "DIR BYTES   raw fd_readdir with a buffer of that size", 2, list_small},
    {"ls-again", "DIR   rewinddir and seekdir agree with the first listing", 1, list_again},
    {"tree", "DIR", 1, tree},
    {"mkdir", "PATH", 1, mkdir_},
    {"rmdir", "PATH", 1, rmdir_},
    {"unlink", "PATH", 1, unlink_},
    {"rename", "FROM TO", 2, rename_},
    {"link", "FROM TO [follow]", 2, link_},
    {"symlink", "TARGET PATH", 2, symlink_},
    {"readlink", "PATH", 1, readlink_},
    {"touch-many", "DIR N", 2, touch_many},
    {0},
};
