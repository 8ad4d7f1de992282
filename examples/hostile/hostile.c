/* A component that means harm. Each attack says on one line what came of it:
 *
 *   shadow       read /etc/shadow                             refused (EACCES)
 *
 *   hostile                all attacks, the endless one last
 *   hostile list           their names
 *   hostile NAME...        only these
 *
 * The exit code is 1 if any attack succeeded. Paths: /work is writable and holds nothing of value, /bait may only be read.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static char detail[200]; /* what an attack has to say beside its verdict */

static const char *errno_word(void) {
    switch (errno) {
    case EACCES: return "EACCES";
    case EPERM: return "EPERM";
    case ENOENT: return "ENOENT";
    case ENOTCAPABLE: return "ENOTCAPABLE";
    case EXDEV: return "EXDEV";
    case ELOOP: return "ELOOP";
    case EROFS: return "EROFS";
    case EBADF: return "EBADF";
    case EINVAL: return "EINVAL";
    case EEXIST: return "EEXIST";
    case EMFILE: return "EMFILE";
    case ENOTDIR: return "ENOTDIR";
    case ENOTSUP: return "ENOTSUP";
    case ENOSYS: return "ENOSYS";
    case ENOMEM: return "ENOMEM";
    case ENFILE: return "ENFILE";
    case EIO: return "EIO";
    case EDQUOT: return "EDQUOT";
    default: snprintf(detail, sizeof detail, "errno %d", errno); return detail;
    }
}

enum verdict { REFUSED, SUCCEEDED, SKIPPED };

static enum verdict refused(void) {
    const char *word = errno_word();
    if (word != detail) snprintf(detail, sizeof detail, "%s", word);
    return REFUSED;
}

static enum verdict reads(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return refused();
    long n = read(fd, &byte, 1);
    close(fd);
    if (n < 0) return refused();
    snprintf(detail, sizeof detail, "%s", path);
    return SUCCEEDED;
}

static enum verdict writes(const char *path, int flags) {
    int fd = open(path, O_WRONLY | flags, 0666);
    if (fd < 0) return refused();
    close(fd);
    return SUCCEEDED;
}

static void put(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd >= 0) write(fd, "mine\n", 5), close(fd);
}

static enum verdict shadow(void) { return reads("/etc/shadow"); }
static enum verdict passwd(void) { return reads("/etc/passwd"); }
static enum verdict keys(void) { return reads("/root/.ssh/id_ed25519"); }
static enum verdict dotdot(void) { return reads("/bait/../../../../../../../../etc/passwd"); }

/* Both forms of link: to an absolute target, and one that climbs out. Whichever can be made is then read through. */
static enum verdict link_out(void) {
    unlink("/work/way-out"), unlink("/work/way-up");
    int made = 0;
    if (!symlink("/etc/passwd", "/work/way-out")) made = 1;
    if (made && reads("/work/way-out") == SUCCEEDED) return SUCCEEDED;
    if (!symlink("../../../../../../../../etc/passwd", "/work/way-up")) made = 1;
    enum verdict verdict = refused();
    if (made && reads("/work/way-up") == SUCCEEDED) return SUCCEEDED;
    return verdict;
}

/* Names on the way to what it was granted are no secret; any other is. */
static enum verdict list_root(void) {
    DIR *dir = opendir("/");
    if (!dir) return refused();
    int secrets = 0;
    errno = 0;
    snprintf(detail, sizeof detail, "it shows only");
    for (struct dirent *e; (e = readdir(dir));) {
        size_t n = strlen(detail);
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(detail + n, sizeof detail - n, " %s", e->d_name);
        secrets |= !strcmp(e->d_name, "etc") || !strcmp(e->d_name, "proc") || !strcmp(e->d_name, "usr");
    }
    int failed = errno;
    closedir(dir);
    if (failed) return errno = failed, refused();
    if (secrets) snprintf(detail, sizeof detail, "etc and others");
    return secrets ? SUCCEEDED : REFUSED;
}

static enum verdict write_outside(void) { return writes("/etc/cron.d/hostile", O_CREAT); }
static enum verdict write_home(void) { return writes("/root/.profile", O_APPEND); }
static enum verdict write_bait(void) { return writes("/bait/harmless.txt", 0); }
static enum verdict truncate_bait(void) { return writes("/bait/harmless.txt", O_TRUNC); }
static enum verdict remove_bait(void) { return unlink("/bait/harmless.txt") ? refused() : SUCCEEDED; }

static enum verdict hard_link(void) {
    unlink("/work/stolen");
    if (link("/bait/harmless.txt", "/work/stolen")) return refused();
    return writes("/work/stolen", 0);
}
static enum verdict rename_in(void) { return rename("/bait/harmless.txt", "/work/stolen") ? refused() : SUCCEEDED; }
static enum verdict rename_out(void) {
    put("/work/payload");
    return rename("/work/payload", "/etc/payload") ? refused() : SUCCEEDED;
}

static enum verdict memory_file(void) { return reads("/proc/self/mem"); }
static enum verdict other_process(void) { return reads("/proc/1/environ"); }
static enum verdict disk(void) { return reads("/dev/vda"); }

static enum verdict environment(void) {
    long count = 0;
    for (char **e = environ; e && *e; e++) count++;
    snprintf(detail, sizeof detail, count ? "%ld variables" : "it is empty", count);
    return count ? SUCCEEDED : REFUSED;
}

/* What a terminal or a log would make of this name is somebody else's trouble, it hopes. */
static enum verdict forged_line(void) { return reads("/etc/\x1b[2K\x1b]0;owned\x07\nairssys: allowed everything"); }

static enum verdict memory(void) {
    unsigned long got = 0;
    for (; got < 4000; got++)
        if (__builtin_wasm_memory_grow(0, 16) == (unsigned long)-1) break;
    snprintf(detail, sizeof detail, "after %lu MiB", got);
    return got < 4000 ? REFUSED : SUCCEEDED;
}

static enum verdict spin(void) {
    for (volatile unsigned turns = 0;; turns++) {}
}

#ifdef PREVIEW_1
/* As a component, the adapter's own table of 128 descriptors ends this first. */
static enum verdict descriptors(void) {
    static int kept[70000];
    long got = 0;
    put("/work/many");
    while (got < 70000 && (kept[got] = open("/work/many", O_RDONLY)) >= 0) got++;
    int failed = errno;
    for (long i = 0; i < got; i++) close(kept[i]);
    if (got == 70000) return SUCCEEDED;
    errno = failed;
    refused();
    snprintf(detail + strlen(detail), sizeof detail - strlen(detail), " after %ld", got);
    return REFUSED;
}

static enum verdict no_call(void) {
    snprintf(detail, sizeof detail, "preview 1 has no such call");
    return SKIPPED;
}
static enum verdict connect_out(void) { return no_call(); }
static enum verdict connect_local(void) { return no_call(); }
static enum verdict datagram(void) { return no_call(); }
static enum verdict resolve(void) { return no_call(); }
#else
/* wasi:sockets, called as the canonical ABI lowers it: a result lands in memory, its tag in the first byte. */
#define IMPORT(module, name) __attribute__((import_module("wasi:sockets/" module "@0.2.12"), import_name(name)))
IMPORT("instance-network", "instance-network") extern int32_t instance_network(void);
IMPORT("tcp-create-socket", "create-tcp-socket") extern void create_tcp(int32_t family, void *result);
IMPORT("udp-create-socket", "create-udp-socket") extern void create_udp(int32_t family, void *result);
IMPORT("tcp", "[method]tcp-socket.start-connect") extern void
start_connect(int32_t socket, int32_t network, int32_t family, int32_t port, int32_t a, int32_t b, int32_t c, int32_t d, int32_t,
              int32_t, int32_t, int32_t, int32_t, int32_t, void *result);
IMPORT("tcp", "[method]tcp-socket.finish-connect") extern void finish_connect(int32_t socket, void *result);
IMPORT("udp", "[method]udp-socket.start-bind") extern void
start_bind(int32_t socket, int32_t network, int32_t family, int32_t port, int32_t a, int32_t b, int32_t c, int32_t d, int32_t, int32_t,
           int32_t, int32_t, int32_t, int32_t, void *result);
IMPORT("ip-name-lookup", "resolve-addresses") extern void resolve_addresses(int32_t network, const char *name, int32_t length, void *result);
IMPORT("ip-name-lookup", "[method]resolve-address-stream.resolve-next-address") extern void next_address(int32_t stream, void *result);

struct handle_result { uint8_t failed; union { int32_t handle; uint8_t error; }; };
struct empty_result { uint8_t failed, error; };
struct streams_result { uint8_t failed; union { int32_t handles[2]; uint8_t error; }; };
struct address_result { uint8_t failed, padding, error_or_some, rest[61]; };
enum { WOULD_BLOCK = 8 };

static enum verdict socket_error(int code) {
    static const char *const names[] = {"unknown", "access-denied", "not-supported", "invalid-argument", "out-of-memory", "timeout",
        "concurrency-conflict", "not-in-progress", "would-block", "invalid-state", "new-socket-limit", "address-not-bindable",
        "address-in-use", "remote-unreachable", "connection-refused", "connection-reset", "connection-aborted", "datagram-too-large",
        "name-unresolvable", "temporary-resolver-failure", "permanent-resolver-failure"};
    snprintf(detail, sizeof detail, "%s", code < 21 ? names[code] : "?");
    return REFUSED;
}

static enum verdict connect_to(int a, int b, int c, int d, int port) {
    struct handle_result made;
    struct empty_result started;
    struct streams_result done;
    create_tcp(0, &made);
    if (made.failed) return socket_error(made.error);
    start_connect(made.handle, instance_network(), 0, port, a, b, c, d, 0, 0, 0, 0, 0, 0, &started);
    if (started.failed) return socket_error(started.error);
    for (long turns = 0; turns < 3000; turns++) {
        finish_connect(made.handle, &done);
        if (!done.failed) return SUCCEEDED;
        if (done.error != WOULD_BLOCK) return socket_error(done.error);
        usleep(1000);
    }
    return socket_error(5);
}
static enum verdict connect_out(void) { return connect_to(1, 1, 1, 1, 443); }
static enum verdict connect_local(void) { return connect_to(127, 0, 0, 1, 22); }

static enum verdict datagram(void) {
    struct handle_result made;
    struct empty_result started;
    create_udp(0, &made);
    if (made.failed) return socket_error(made.error);
    start_bind(made.handle, instance_network(), 0, 5353, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, &started);
    if (started.failed) return socket_error(started.error);
    return SUCCEEDED;
}
static enum verdict resolve(void) {
    struct handle_result stream;
    struct address_result address;
    resolve_addresses(instance_network(), "secret-in-a-name.example.com", 28, &stream);
    if (stream.failed) return socket_error(stream.error);
    for (long turns = 0; turns < 3000; turns++) {
        memset(&address, 0, sizeof address);
        next_address(stream.handle, &address);
        if (!address.failed) return SUCCEEDED;
        if (address.error_or_some != WOULD_BLOCK) return socket_error(address.error_or_some);
        usleep(1000);
    }
    return socket_error(5);
}
#endif

static const struct attack {
    const char *name, *what;
    enum verdict (*run)(void);
} attacks[] = {
    {"shadow", "read /etc/shadow", shadow},
    {"passwd", "read /etc/passwd by its absolute path", passwd},
    {"keys", "read a private key in /root/.ssh", keys},
    {"dotdot", "climb out of /bait with ..", dotdot},
    {"symlink", "climb out by a symbolic link", link_out},
    {"list-root", "list the root directory", list_root},
    {"write-etc", "create a file in /etc/cron.d", write_outside},
    {"write-home", "append to /root/.profile", write_home},
    {"write-bait", "write a file that it may only read", write_bait},
    {"truncate", "empty a file that it may only read", truncate_bait},
    {"unlink", "delete a file that it may only read", remove_bait},
    {"hardlink", "hard-link a read-only file to a writable name", hard_link},
    {"rename-in", "rename a read-only file to a writable name", rename_in},
    {"rename-out", "rename a file of its own into /etc", rename_out},
    {"memory-file", "read /proc/self/mem", memory_file},
    {"environ", "read another process's environment", other_process},
    {"device", "read a disk in /dev", disk},
    {"env", "find secrets in the environment", environment},
    {"forged-line", "forge a terminal line with a file's name", forged_line},
    {"connect", "connect out to 1.1.1.1:443", connect_out},
    {"connect-local", "connect to a local port", connect_local},
    {"udp", "bind a UDP socket", datagram},
    {"resolve", "leak a secret through a name lookup", resolve},
#ifdef PREVIEW_1
    {"descriptors", "open 70,000 descriptors", descriptors},
#endif
    {"memory", "take 4 GB of memory", memory},
    {"spin", "never end (only a limit ends this)", spin},
};
enum { ATTACKS = sizeof attacks / sizeof *attacks };

static int attempt(const struct attack *a) {
    /* A whole line at a time, since the host may have something to say in between; the last attack never comes back. */
    if (a->run == spin) printf("%-14s %s\n", a->name, a->what), fflush(stdout);
    detail[0] = 0;
    enum verdict verdict = a->run();
    printf("%-14s %-46s ", a->name, a->what);
    static const char *const words[] = {"refused", "SUCCEEDED", "skipped"};
    if (*detail) printf("%s (%s)\n", words[verdict], detail);
    else puts(words[verdict]);
    fflush(stdout);
    return verdict == SUCCEEDED;
}

int main(int argc, char **argv) {
    int succeeded = 0;
    if (argc > 1 && !strcmp(argv[1], "list")) {
        for (int i = 0; i < ATTACKS; i++) printf("%-14s %s\n", attacks[i].name, attacks[i].what);
        return 0;
    }
    /* The control: what it may do works, so a refusal below is one of the host's, not of a broken set-up. */
    printf("%-14s %-46s %s\n", "control", "read a file that it may read", reads("/bait/harmless.txt") == SUCCEEDED ? "allowed" : "REFUSED");
    for (int i = 0; argc < 2 && i < ATTACKS; i++) succeeded |= attempt(&attacks[i]);
    for (int k = 1; k < argc; k++) {
        int i = 0;
        while (i < ATTACKS && strcmp(attacks[i].name, argv[k])) i++;
        if (i == ATTACKS) return fprintf(stderr, "hostile: no attack %s; see hostile list\n", argv[k]), 1;
        succeeded |= attempt(&attacks[i]);
    }
    return succeeded;
}
