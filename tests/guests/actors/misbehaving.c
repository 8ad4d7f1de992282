/* An actor that means harm, one thing a message; what came of it is the answer: "ok", "ok VALUE" or "KIND: REASON".
 *
 *   ends        trap | spin | recurse | exit | memory BYTES | blocks BYTES | unaligned | bad-text
 *   answers     late MS | silent | fail TEXT | huge BYTES | echo TEXT
 *   messages    send TO TEXT | request TO MS TEXT | cancel ID | broadcast TEXT | publish TOPIC TEXT
 *               flood COUNT TO | requests COUNT TO | topics COUNT TOPIC | oversize BYTES TO | guess COUNT | who | about NAME
 *   callbacks   last | callbacks
 *   storage     get KEY | set KEY TEXT | delete KEY | exists KEY | list PREFIX | usage | cas KEY OLD NEW ("-": nothing)
 *               fill COUNT BYTES | overwrite COUNT BYTES | key-of BYTES | odd-key HEX
 *   logs        log-control | log TEXT | logs COUNT | log-fields COUNT BYTES
 *   files       read PATH | write PATH | ls PATH (through WASI)
 *   others      granted | allows ACTION RESOURCE | invoke CAPABILITY ACTION TEXT | sleep MS | time | self | unwell
 *
 * Where COUNT things are done, "ok N" tells how many were; the first refusal follows it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actor.h"

static const char *const kinds[] = {"not-permitted", "unknown-target", "over-quota",  "too-large", "mailbox-full",
                                    "target-gone",   "timed-out",      "unavailable", "invalid",   "failed"};
static char last[600] = "none";
static unsigned callbacks;
static bool unwell;

/* ---- texts */

static actor_text text(const char *words) { return (actor_text){words, strlen(words)}; }

static char *copy(actor_text from) {
    char *to = actor_allocate(from.size + 1);
    memcpy(to, from.at, from.size);
    to[from.size] = 0;
    return to;
}

/* The next word of a line, or all the rest of it; "" at its end. */
static char *word(char **line) {
    char *found = *line, *blank = strchr(found, ' ');
    *line = blank ? blank + 1 : found + strlen(found);
    if (blank) *blank = 0;
    return found;
}
static uint64_t number(char **line) { return strtoull(word(line), NULL, 10); }

static actor_text filled(size_t size) {
    char *at = actor_allocate(size);
    memset(at, 'x', size);
    return (actor_text){at, size};
}

/* ---- answers */

static actor_answer say(const char *format, ...) {
    char *line = actor_allocate(1024);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, 1024, format, arguments);
    va_end(arguments);
    return actor_ok(text(line));
}

static const char *error_words(const actor_error *error) {
    char *line = actor_allocate(700);
    if (error->kind == ACTOR_OVER_QUOTA) {
        snprintf(line, 700, "over-quota: usage %" PRIu64 " limit %" PRIu64 " retry-after-ms %" PRIu64, error->quota.usage,
                 error->quota.limit, error->quota.retry_after_ms);
    } else if (error->kind == ACTOR_TOO_LARGE) {
        snprintf(line, 700, "too-large: %" PRIu64, error->limit);
    } else if (error->kind == ACTOR_NOT_PERMITTED || error->kind >= ACTOR_UNAVAILABLE) {
        snprintf(line, 700, "%s: %.*s", kinds[error->kind], (int)error->reason.size, error->reason.at);
    } else {
        snprintf(line, 700, "%s:", kinds[error->kind]);
    }
    return line;
}

static actor_answer done(actor_result result) {
    return result.failed ? say("%s", error_words(&result.error)) : say("ok");
}
static actor_answer counted(actor_result result) {
    return result.failed ? say("%s", error_words(&result.error)) : say("ok %u", result.count);
}
static actor_answer truth(actor_result result) {
    return result.failed ? say("%s", error_words(&result.error)) : say("ok %s", result.truth ? "true" : "false");
}
static actor_answer names(actor_result result) {
    if (result.failed) return say("%s", error_words(&result.error));
    char *line = actor_allocate(4096);
    size_t used = snprintf(line, 4096, "ok");
    for (size_t i = 0; i < result.names.size && used < 4096; i++)
        used += snprintf(line + used, 4096 - used, " %.*s", (int)result.names.at[i].size, result.names.at[i].at);
    return actor_ok(text(line));
}

/* Does a thing again and again, and goes on after a refusal; answers how often it was done, and with the first refusal. */
static actor_answer again(uint64_t count, actor_result (*thing)(uint64_t, actor_text), actor_text argument) {
    uint64_t did = 0;
    const char *first = "";
    for (uint64_t i = 0; i < count; i++) {
        actor_result result = thing(i, argument);
        if (!result.failed) did++;
        else if (!*first) first = error_words(&result.error);
    }
    return say("ok %" PRIu64 "%s%s", did, *first ? " " : "", first);
}
static actor_result one_send(uint64_t i, actor_text to) {
    char line[32];
    snprintf(line, sizeof line, "%" PRIu64, i);
    return actor_send(to, text(line));
}
static actor_result one_request(uint64_t i, actor_text to) { return actor_request(to, text("echo flood"), 5000); }
static actor_result one_topic(uint64_t i, actor_text topic) { return actor_publish(topic, text("flood")); }
static actor_result one_guess(uint64_t i, actor_text nothing) { return actor_cancel(i * 0x9e3779b97f4a7c15u >> 11); }
static actor_result one_key(uint64_t i, actor_text value) {
    char key[32];
    snprintf(key, sizeof key, "fill:%" PRIu64, i);
    return actor_set(text(key), value);
}
static actor_result one_overwrite(uint64_t i, actor_text value) { return actor_set(text("fill:one"), value); }
static actor_result one_log(uint64_t i, actor_text nothing) {
    actor_log(ACTOR_INFO, text("one of many"));
    return (actor_result){0};
}

/* ---- what ends it */

static volatile unsigned depth;
static __attribute__((noinline)) unsigned recurse(volatile char *above) {
    volatile char here[4096];
    here[0] = above[0];
    return ++depth ? recurse(here) + here[0] : 0;
}

/* Asks for memory in pieces of a page until it has as much or is refused; lives on where the memory's limit refuses. */
static actor_answer take_memory(uint64_t bytes) {
    uint64_t pages = 0;
    while (pages * 65536 < bytes) {
        size_t at = __builtin_wasm_memory_grow(0, 1);
        if (at == SIZE_MAX) return say("ok %" PRIu64 " refused", pages * 65536);
        *(volatile char *)(at * 65536) = 1;
        pages++;
    }
    return say("ok %" PRIu64, pages * 65536);
}

/* The same with malloc, in pieces of 1 MiB, and it takes a refusal badly. */
static actor_answer take_blocks(uint64_t bytes) {
    for (uint64_t took = 0; took < bytes; took += 1 << 20) {
        volatile char *block = malloc(1 << 20);
        if (!block) abort();
        block[0] = 1;
    }
    return say("ok");
}

/* ---- files */

static actor_answer file_answer(long result) {
    return result < 0 ? say("errno %d: %s", errno, strerror(errno)) : say("ok %ld", result);
}
static actor_answer read_file(const char *path) {
    char *line = actor_allocate(512);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return file_answer(-1);
    long size = read(fd, line, 500);
    close(fd);
    if (size < 0) return file_answer(-1);
    return say("ok %.*s", (int)size, line);
}
static actor_answer write_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0666);
    if (fd < 0) return file_answer(-1);
    long size = write(fd, "written", 7);
    close(fd);
    return file_answer(size);
}
static actor_answer list_files(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return file_answer(-1);
    char *line = actor_allocate(4096);
    size_t used = snprintf(line, 4096, "ok");
    for (struct dirent *entry; (entry = readdir(directory)) && used < 4096;)
        used += snprintf(line + used, 4096 - used, " %s", entry->d_name);
    closedir(directory);
    return actor_ok(text(line));
}

/* ---- the orders */

static actor_text or_nothing(const char *written, const actor_text **there) {
    static actor_text kept[2];
    static int which;
    actor_text *place = &kept[which ^= 1];
    *place = text(written);
    *there = strcmp(written, "-") ? place : NULL;
    return *place;
}

static actor_answer on_message(const actor_message *message) {
    char *line = copy(message->payload), *order = word(&line);
#define IS(name) (!strcmp(order, name))
    if (IS("trap")) __builtin_trap();
    if (IS("spin"))
        for (volatile unsigned forever = 0;;) forever++;
    if (IS("recurse")) return say("ok %u", recurse((volatile char[1]){0}));
    if (IS("exit")) exit(3);
    if (IS("memory")) return take_memory(number(&line));
    if (IS("blocks")) return take_blocks(number(&line));
    if (IS("unaligned")) return actor_ok((actor_text){(const char *)0xfffffff0u, 64}); /* beyond its memory */
    if (IS("bad-text")) return actor_send((actor_text){"\xff\xfe", 2}, text("")), say("ok");

    if (IS("late")) return actor_sleep_ms(number(&line)), say("ok late");
    if (IS("silent")) return actor_nothing();
    if (IS("fail")) return actor_failure(text(line));
    if (IS("huge")) return actor_ok(filled(number(&line)));
    if (IS("echo")) return actor_ok(text(line));
    if (IS("unwell")) return unwell = true, say("ok");

    if (IS("send")) {
        char *to = word(&line);
        return done(actor_send(text(to), text(line)));
    }
    if (IS("request")) {
        char *to = word(&line);
        uint32_t timeout_ms = number(&line);
        actor_result result = actor_request(text(to), text(line), timeout_ms);
        return result.failed ? done(result) : say("ok %" PRIu64, result.number);
    }
    if (IS("cancel")) return done(actor_cancel(number(&line)));
    if (IS("broadcast")) return counted(actor_broadcast(text(line)));
    if (IS("publish")) {
        char *topic = word(&line);
        return counted(actor_publish(text(topic), text(line)));
    }
    if (IS("flood")) {
        uint64_t count = number(&line);
        return again(count, one_send, text(line));
    }
    if (IS("requests")) {
        uint64_t count = number(&line);
        return again(count, one_request, text(line));
    }
    if (IS("topics")) {
        uint64_t count = number(&line);
        return again(count, one_topic, text(line));
    }
    if (IS("guess")) return again(number(&line), one_guess, text(""));
    if (IS("oversize")) {
        uint64_t size = number(&line);
        return done(actor_send(text(line), filled(size)));
    }
    if (IS("who")) return names(actor_list_components());
    if (IS("about")) {
        actor_result result = actor_metadata_of(text(line));
        return result.failed ? done(result)
                             : say("ok %s %s %s", copy(result.metadata.name), copy(result.metadata.version),
                                   copy(result.metadata.description));
    }
    if (IS("self")) return say("ok %s", copy(actor_self_id()));

    if (IS("last")) return say("%s", last);
    if (IS("callbacks")) return say("ok %u", callbacks);

    if (IS("get")) {
        actor_result result = actor_get(text(line));
        if (result.failed) return done(result);
        return result.optional.there ? say("ok some %s", copy(result.optional.value)) : say("ok none");
    }
    if (IS("set")) {
        char *key = word(&line);
        return done(actor_set(text(key), text(line)));
    }
    if (IS("delete")) return truth(actor_delete(text(line)));
    if (IS("exists")) return truth(actor_exists(text(line)));
    if (IS("list")) return names(actor_list_keys(text(line), text(""), 1000));
    if (IS("usage")) {
        actor_result result = actor_usage();
        return result.failed ? done(result) : say("ok %" PRIu64 " %" PRIu64, result.usage.used, result.usage.limit);
    }
    if (IS("cas")) {
        const actor_text *expected, *value;
        char *key = word(&line);
        or_nothing(word(&line), &expected), or_nothing(line, &value);
        return truth(actor_compare_and_set(text(key), expected, value));
    }
    if (IS("fill")) {
        uint64_t count = number(&line);
        return again(count, one_key, filled(number(&line)));
    }
    if (IS("overwrite")) {
        uint64_t count = number(&line);
        return again(count, one_overwrite, filled(number(&line)));
    }
    if (IS("key-of")) return done(actor_set(filled(number(&line)), text("1")));
    if (IS("odd-key")) { /* bytes that can't be written in a message's line */
        size_t size = strlen(line) / 2;
        char *key = actor_allocate(size);
        for (size_t i = 0; i < size; i++) key[i] = strtoul((char[]){line[2 * i], line[2 * i + 1], 0}, NULL, 16);
        return done(actor_set((actor_text){key, size}, text("1")));
    }

    if (IS("log-control")) {
        actor_field field = {ACTOR_TEXT("field\nname"), ACTOR_TEXT("value\033]0;owned\007\r\n{\"seq\":1}")};
        actor_text line = ACTOR_TEXT("one\nairssys: allowed everything\033[2J\033[31mred\302\233\u202e\u2028\0end");
        actor_log_fields(ACTOR_WARN, line, &field, 1);
        return say("ok");
    }
    if (IS("log")) return actor_log(ACTOR_INFO, text(line)), say("ok");
    if (IS("logs")) return again(number(&line), one_log, text(""));
    if (IS("log-fields")) {
        size_t count = number(&line);
        actor_text value = filled(number(&line));
        actor_field *fields = actor_allocate(count * sizeof *fields);
        for (size_t i = 0; i < count; i++) fields[i] = (actor_field){text("field"), value};
        actor_log_fields(ACTOR_INFO, text("many fields"), fields, count);
        return say("ok");
    }

    if (IS("read")) return read_file(line);
    if (IS("write")) return write_file(line);
    if (IS("ls")) return list_files(line);

    if (IS("granted")) return names(actor_granted());
    if (IS("allows")) {
        char *action = word(&line);
        return say("ok %s", actor_allows(text(action), text(line)) ? "true" : "false");
    }
    if (IS("invoke")) {
        char *capability = word(&line), *action = word(&line);
        actor_result result = actor_invoke(text(capability), text(action), text(line));
        return result.failed ? done(result) : say("ok %s", copy(result.value));
    }
    if (IS("time")) return say("ok %" PRIu64 " %" PRIu64, actor_now_ns(), actor_now_ms());
    if (IS("sleep")) return actor_sleep_ms(number(&line)), say("ok");
    return actor_failure(text("no such order"));
}

static actor_answer on_callback(const actor_callback *callback) {
    callbacks++;
    if (callback->failed) {
        snprintf(last, sizeof last, "%" PRIu64 " %s", callback->correlation, error_words(&callback->error));
    } else {
        snprintf(last, sizeof last, "%" PRIu64 " ok %.*s", callback->correlation, (int)callback->payload.size,
                 callback->payload.at);
    }
    return actor_nothing();
}

static enum actor_health on_health(void) { return unwell ? ACTOR_UNHEALTHY : ACTOR_HEALTHY; }

ACTOR("misbehaving", "1.0.0", "Means harm", .on_message = on_message, .on_callback = on_callback,
      .on_health = on_health)
