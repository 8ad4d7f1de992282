/* The command table, and what all commands share.
 *
 *   tool COMMAND ARGS... [, COMMAND ARGS...]...
 *
 * Commands separated by a lone comma run one after the other in the same process; all of them run, and the exit code is 1
 * if any was refused. Each prints one line `COMMAND ARG: ok [what]` or `COMMAND ARG: ENAME` unless its output is the point.
 */
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* WASI preview 1 numbers, in order: https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md#-errno-variant */
static const char *const names[] = {
    "SUCCESS",      "E2BIG",           "EACCES",         "EADDRINUSE",     "EADDRNOTAVAIL", "EAFNOSUPPORT", "EAGAIN",
    "EALREADY",     "EBADF",           "EBADMSG",        "EBUSY",          "ECANCELED",     "ECHILD",       "ECONNABORTED",
    "ECONNREFUSED", "ECONNRESET",      "EDEADLK",        "EDESTADDRREQ",   "EDOM",          "EDQUOT",       "EEXIST",
    "EFAULT",       "EFBIG",           "EHOSTUNREACH",   "EIDRM",          "EILSEQ",        "EINPROGRESS",  "EINTR",
    "EINVAL",       "EIO",             "EISCONN",        "EISDIR",         "ELOOP",         "EMFILE",       "EMLINK",
    "EMSGSIZE",     "EMULTIHOP",       "ENAMETOOLONG",   "ENETDOWN",       "ENETRESET",     "ENETUNREACH",  "ENFILE",
    "ENOBUFS",      "ENODEV",          "ENOENT",         "ENOEXEC",        "ENOLCK",        "ENOLINK",      "ENOMEM",
    "ENOMSG",       "ENOPROTOOPT",     "ENOSPC",         "ENOSYS",         "ENOTCONN",      "ENOTDIR",      "ENOTEMPTY",
    "ENOTRECOVERABLE", "ENOTSOCK",     "ENOTSUP",        "ENOTTY",         "ENXIO",         "EOVERFLOW",    "EOWNERDEAD",
    "EPERM",        "EPIPE",           "EPROTO",         "EPROTONOSUPPORT", "EPROTOTYPE",   "ERANGE",       "EROFS",
    "ESPIPE",       "ESRCH",           "ESTALE",         "ETIMEDOUT",      "ETXTBSY",       "EXDEV",        "ENOTCAPABLE",
};

const char *errno_name(int code) {
    return code >= 0 && code < (int)(sizeof names / sizeof *names) ? names[code] : "E?";
}

int say(const char *what, long result) {
    if (result >= 0) printf("%s: ok\n", what);
    else printf("%s: %s\n", what, errno_name(errno));
    return result < 0;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 0;
}

unsigned long unescape(char *text) {
    char *out = text;
    for (const char *in = text; *in; in++) {
        if (*in != '\\' || !in[1]) {
            *out++ = *in;
            continue;
        }
        in++;
        if (*in == 'n') *out++ = '\n';
        else if (*in == 't') *out++ = '\t';
        else if (*in == 'e') *out++ = 27;
        else if (*in == 'x' && in[1] && in[2]) *out++ = (char)(hex(in[1]) << 4 | hex(in[2])), in += 2;
        else *out++ = *in;
    }
    *out = 0;
    return (unsigned long)(out - text);
}

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static const struct command *const tables[] = {file_commands, directory_commands, raw_commands, process_commands, bench_commands};

static int help(void) {
    for (unsigned t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct command *c = tables[t]; c->name; c++) printf("%s %s\n", c->name, c->usage);
    return 0;
}

static int run(int argc, char **argv) {
    if (!strcmp(argv[0], "help")) return help();
    for (unsigned t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct command *c = tables[t]; c->name; c++) {
            if (strcmp(c->name, argv[0])) continue;
            if (argc - 1 < c->min_args) {
                fprintf(stderr, "usage: tool %s %s\n", c->name, c->usage);
                return 64;
            }
            int code = c->run(argc, argv);
            fflush(stdout);
            return code;
        }
    fprintf(stderr, "tool: no command %s; see tool help\n", argv[0]);
    return 64;
}

int main(int argc, char **argv) {
    if (argc < 2) return help();
    int worst = 0;
    for (int first = 1, i = 1; i <= argc; i++) {
        if (i < argc && strcmp(argv[i], ",")) continue;
        if (i > first) {
            char *end = argv[i]; /* argv[argc] is NULL already */
            argv[i] = 0;
            int code = run(i - first, argv + first);
            argv[i] = end;
            if (code > worst) worst = code;
        }
        first = i + 1;
    }
    return worst;
}
