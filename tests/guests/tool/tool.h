/* tool: one WASI program that makes single file, memory and clock calls on request, and says plainly what came of each. */
#ifndef TOOL_H
#define TOOL_H

#include <stdint.h>

/* A command gets its arguments (argv[0] is its own name) and returns 0, or 1 when what it tried was refused. */
typedef int command_fn(int argc, char **argv);

struct command {
    const char *name;
    const char *usage; /* the arguments, for `tool help` */
    int min_args;      /* without the command's name */
    command_fn *run;
};

extern const struct command file_commands[], directory_commands[], raw_commands[], process_commands[], bench_commands[];

const char *errno_name(int code);

/* Prints `WHAT: ok` or `WHAT: ENAME`, the latter from errno when result is negative; returns 0 or 1. */
int say(const char *what, long result);

/* Decodes \n \t \\ \e \xHH in place; returns the number of bytes (a NUL may be among them). */
unsigned long unescape(char *text);

uint64_t now_ns(void);

#endif
