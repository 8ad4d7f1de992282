/* Actors in C: the world `actor` of wit/airssys-core.wit, in one header without any library.
 *
 *   #include "actor.h"
 *
 *   static actor_answer on_message(const actor_message *message) { return actor_ok(message->payload); }
 *
 *   ACTOR("echo", "1.0.0", "Answers what it is sent", .on_message = on_message)
 *
 * Built with zig cc and wasm-tools:
 *
 *   zig cc -target wasm32-freestanding -nostdlib -Os -s -Wl,--no-entry -I wit/c -o core.wasm echo.c
 *   wasm-tools component embed --world actor wit core.wasm -o embedded.wasm
 *   wasm-tools component new embedded.wasm -o echo.wasm
 *
 * What the host hands over, and what actor_allocate() returns, lives until the call ends: copy what is to be kept.
 * Texts are UTF-8 with a length and without a NUL at the end. Include it in one source file of a program.
 *
 * The structs below are laid out as the component model's canonical ABI lays them out (CanonicalABI.md, "Loading",
 * "Flattening"), so nothing has to be converted; wasm-tools checks the signatures against the WIT, and the tests the rest.
 */
#ifndef ACTOR_H
#define ACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- types */

typedef struct {
    const char *at;
    size_t size;
} actor_text; /* string, and payload (list<u8>) */

#define ACTOR_TEXT(literal) ((actor_text){literal, sizeof(literal) - 1})

enum actor_error_kind {
    ACTOR_NOT_PERMITTED, /* reason */
    ACTOR_UNKNOWN_TARGET,
    ACTOR_OVER_QUOTA, /* quota */
    ACTOR_TOO_LARGE,  /* limit */
    ACTOR_MAILBOX_FULL,
    ACTOR_TARGET_GONE,
    ACTOR_TIMED_OUT,
    ACTOR_UNAVAILABLE, /* reason */
    ACTOR_INVALID,     /* reason */
    ACTOR_FAILED,      /* reason */
};

typedef struct {
    uint8_t kind;
    union {
        actor_text reason;
        struct {
            uint64_t usage, limit, retry_after_ms;
        } quota;
        uint64_t limit;
    };
} actor_error;

typedef struct {
    actor_text name, version, description;
} actor_metadata;

typedef struct {
    uint64_t seconds;
    uint32_t nanoseconds;
} actor_time;

/* What an import returns; which member holds the value is said beside each function. */
typedef struct {
    uint8_t failed;
    union {
        actor_error error; /* when it failed */
        uint64_t number;
        uint32_t count;
        uint8_t truth;
        struct {
            uint8_t there;
            actor_text value;
        } optional;
        actor_text value;
        struct {
            const actor_text *at;
            size_t size;
        } names;
        struct {
            uint64_t used, limit;
        } usage;
        actor_metadata metadata;
    };
} actor_result;

typedef struct {
    actor_text sender, payload;
    bool published; /* then to `topic` */
    actor_text topic;
    bool wants_answer;
} actor_message;

typedef struct {
    uint64_t correlation;
    bool failed;
    actor_text payload; /* when it did not fail */
    actor_error error;  /* when it did */
} actor_callback;

/* What handle-message returns: result<option<payload>, error>. */
typedef struct {
    uint8_t failed;
    union {
        struct {
            uint8_t there;
            actor_text value;
        } payload;
        actor_error error;
    };
} actor_answer;

enum actor_health { ACTOR_HEALTHY, ACTOR_DEGRADED, ACTOR_UNHEALTHY, ACTOR_HEALTH_UNKNOWN };
enum actor_level { ACTOR_TRACE, ACTOR_DEBUG, ACTOR_INFO, ACTOR_WARN, ACTOR_ERROR };

typedef struct {
    actor_text name, value;
} actor_field;

_Static_assert(sizeof(actor_text) == 8 && sizeof(actor_error) == 32 && sizeof(actor_result) == 40, "wasm32 only");
_Static_assert(offsetof(actor_result, error) == 8 && offsetof(actor_error, reason) == 8, "canonical ABI");
_Static_assert(sizeof(actor_answer) == 40 && offsetof(actor_answer, payload.value) == 12, "canonical ABI");

/* ---- what an author writes: ACTOR(name, version, description, .on_message = ..., ...). All functions are optional. */

struct actor {
    actor_metadata metadata;
    actor_answer (*on_start)(actor_text config); /* only whether it failed counts */
    actor_answer (*on_message)(const actor_message *message);
    actor_answer (*on_callback)(const actor_callback *callback); /* only whether it failed counts */
    enum actor_health (*on_health)(void);
    void (*on_shutdown)(void);
};

#define ACTOR(name_, version_, description_, ...)                                                                  \
    const struct actor actor_itself = {                                                                            \
        .metadata = {{name_, sizeof(name_) - 1}, {version_, sizeof(version_) - 1}, {description_, sizeof(description_) - 1}}, \
        __VA_ARGS__};

extern const struct actor actor_itself;

static inline actor_answer actor_nothing(void) { return (actor_answer){0}; }
static inline actor_answer actor_ok(actor_text payload) {
    return (actor_answer){.payload = {1, payload}};
}
static inline actor_answer actor_failure(actor_text reason) {
    return (actor_answer){.failed = 1, .error = {.kind = ACTOR_FAILED, .reason = reason}};
}

/* ---- memory of one call: blocks that memory.grow gave, used from front to back, and again after the call */

struct actor_block {
    struct actor_block *next;
    size_t size, used; /* bytes, this head included */
};

static struct actor_block *actor_blocks;

static inline void *actor_allocate(size_t size) {
    const size_t page = 65536, head = (sizeof(struct actor_block) + 15) & ~(size_t)15;
    if (size > SIZE_MAX - head - page) __builtin_trap();
    size = (size + 15) & ~(size_t)15;
    for (struct actor_block *block = actor_blocks; block; block = block->next) {
        if (block->size - block->used < size) continue;
        block->used += size;
        return (char *)block + block->used - size;
    }
    size_t pages = (size + head + page - 1) / page, before = __builtin_wasm_memory_grow(0, pages);
    if (before == SIZE_MAX) __builtin_trap(); /* the memory limit: whoever wants to live on asks for less */
    struct actor_block *block = (struct actor_block *)(before * page);
    *block = (struct actor_block){actor_blocks, pages * page, head + size};
    actor_blocks = block;
    return (char *)block + head;
}

static inline void actor_forget(void) {
    const size_t head = (sizeof(struct actor_block) + 15) & ~(size_t)15;
    for (struct actor_block *block = actor_blocks; block; block = block->next) block->used = head;
}

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    char *fresh = actor_allocate(size); /* 16 bytes is more than any type's alignment */
    for (size_t i = 0; i < old_size && i < size; i++) fresh[i] = ((char *)old)[i];
    return fresh;
}

#ifdef __wasi__
/* With a C library the adapter to WASI 0.2 takes memory by cabi_realloc, with its first call, and keeps it. That call is made
 * here, before any of the host's, and what was allocated by then is never used again. */
#include <wasi/api.h>

__attribute__((constructor)) static void actor_begin(void) {
    __wasi_prestat_t first;
    (void)!__wasi_fd_prestat_get(3, &first);
    actor_blocks = NULL;
}
#endif

/* ---- imports */

#define ACTOR_IMPORT(interface, name)                                                                                \
    __attribute__((import_module("airssys:core/" interface "@1.0.0"), import_name(name))) extern

ACTOR_IMPORT("host-messaging", "send")
void actor_import_send(const char *, size_t, const char *, size_t, actor_result *);
ACTOR_IMPORT("host-messaging", "request")
void actor_import_request(const char *, size_t, const char *, size_t, uint32_t, actor_result *);
ACTOR_IMPORT("host-messaging", "cancel-request") void actor_import_cancel(uint64_t, actor_result *);
ACTOR_IMPORT("host-messaging", "broadcast") void actor_import_broadcast(const char *, size_t, actor_result *);
ACTOR_IMPORT("host-messaging", "publish")
void actor_import_publish(const char *, size_t, const char *, size_t, actor_result *);
ACTOR_IMPORT("host-messaging", "self-id") void actor_import_self_id(actor_text *);
ACTOR_IMPORT("host-services", "log")
void actor_import_log(uint32_t, const char *, size_t, const actor_field *, size_t);
ACTOR_IMPORT("host-services", "current-time") void actor_import_current_time(actor_time *);
ACTOR_IMPORT("host-services", "current-time-millis") uint64_t actor_import_current_time_millis(void);
ACTOR_IMPORT("host-services", "sleep-millis") void actor_import_sleep_millis(uint32_t);
ACTOR_IMPORT("host-services", "list-components") void actor_import_list_components(actor_result *);
ACTOR_IMPORT("host-services", "get-component-metadata")
void actor_import_get_metadata(const char *, size_t, actor_result *);
ACTOR_IMPORT("storage", "get") void actor_import_get(const char *, size_t, actor_result *);
ACTOR_IMPORT("storage", "set") void actor_import_set(const char *, size_t, const char *, size_t, actor_result *);
ACTOR_IMPORT("storage", "delete") void actor_import_delete(const char *, size_t, actor_result *);
ACTOR_IMPORT("storage", "exists") void actor_import_exists(const char *, size_t, actor_result *);
ACTOR_IMPORT("storage", "list-keys")
void actor_import_list_keys(const char *, size_t, const char *, size_t, uint32_t, actor_result *);
ACTOR_IMPORT("storage", "usage") void actor_import_usage(actor_result *);
ACTOR_IMPORT("storage", "compare-and-set")
void actor_import_compare_and_set(const char *, size_t, uint32_t, const char *, size_t, uint32_t, const char *, size_t,
                                  actor_result *);
ACTOR_IMPORT("capabilities", "granted") void actor_import_granted(void *);
ACTOR_IMPORT("capabilities", "allows") uint32_t actor_import_allows(const char *, size_t, const char *, size_t);
ACTOR_IMPORT("custom", "invoke")
void actor_import_invoke(const char *, size_t, const char *, size_t, const char *, size_t, actor_result *);

static inline actor_result actor_send(actor_text to, actor_text payload) {
    actor_result result;
    actor_import_send(to.at, to.size, payload.at, payload.size, &result);
    return result;
}
/* number: the correlation id that the callback will have */
static inline actor_result actor_request(actor_text to, actor_text payload, uint32_t timeout_ms) {
    actor_result result;
    actor_import_request(to.at, to.size, payload.at, payload.size, timeout_ms, &result);
    return result;
}
static inline actor_result actor_cancel(uint64_t correlation) {
    actor_result result;
    actor_import_cancel(correlation, &result);
    return result;
}
/* count: receivers */
static inline actor_result actor_broadcast(actor_text payload) {
    actor_result result;
    actor_import_broadcast(payload.at, payload.size, &result);
    return result;
}
/* count: receivers */
static inline actor_result actor_publish(actor_text topic, actor_text payload) {
    actor_result result;
    actor_import_publish(topic.at, topic.size, payload.at, payload.size, &result);
    return result;
}
static inline actor_text actor_self_id(void) {
    actor_text id;
    actor_import_self_id(&id);
    return id;
}

static inline void actor_log_fields(enum actor_level level, actor_text line, const actor_field *fields, size_t count) {
    actor_import_log(level, line.at, line.size, fields, count);
}
static inline void actor_log(enum actor_level level, actor_text line) { actor_log_fields(level, line, NULL, 0); }
/* nanoseconds since 1970, UTC */
static inline uint64_t actor_now_ns(void) {
    actor_time now;
    actor_import_current_time(&now);
    return now.seconds * 1000000000 + now.nanoseconds;
}
static inline uint64_t actor_now_ms(void) { return actor_import_current_time_millis(); }
static inline void actor_sleep_ms(uint32_t milliseconds) { actor_import_sleep_millis(milliseconds); }
/* names */
static inline actor_result actor_list_components(void) {
    actor_result result;
    actor_import_list_components(&result);
    return result;
}
/* metadata */
static inline actor_result actor_metadata_of(actor_text name) {
    actor_result result;
    actor_import_get_metadata(name.at, name.size, &result);
    return result;
}

/* optional */
static inline actor_result actor_get(actor_text key) {
    actor_result result;
    actor_import_get(key.at, key.size, &result);
    return result;
}
static inline actor_result actor_set(actor_text key, actor_text value) {
    actor_result result;
    actor_import_set(key.at, key.size, value.at, value.size, &result);
    return result;
}
/* truth: whether there was one */
static inline actor_result actor_delete(actor_text key) {
    actor_result result;
    actor_import_delete(key.at, key.size, &result);
    return result;
}
/* truth */
static inline actor_result actor_exists(actor_text key) {
    actor_result result;
    actor_import_exists(key.at, key.size, &result);
    return result;
}
/* names, at most `limit`, those after `after` */
static inline actor_result actor_list_keys(actor_text prefix, actor_text after, uint32_t limit) {
    actor_result result;
    actor_import_list_keys(prefix.at, prefix.size, after.at, after.size, limit, &result);
    return result;
}
/* usage */
static inline actor_result actor_usage(void) {
    actor_result result;
    actor_import_usage(&result);
    return result;
}
/* truth: whether it was set (deleted where `value` is NULL), since what was there was `expected` (NULL: nothing) */
static inline actor_result actor_compare_and_set(actor_text key, const actor_text *expected, const actor_text *value) {
    actor_result result;
    actor_import_compare_and_set(key.at, key.size, expected != NULL, expected ? expected->at : NULL,
                                 expected ? expected->size : 0, value != NULL, value ? value->at : NULL,
                                 value ? value->size : 0, &result);
    return result;
}

/* names, as `action:pattern`; never failed */
static inline actor_result actor_granted(void) {
    actor_result result = {0};
    actor_import_granted(&result.names);
    return result;
}
static inline bool actor_allows(actor_text action, actor_text resource) {
    return actor_import_allows(action.at, action.size, resource.at, resource.size);
}
/* value */
static inline actor_result actor_invoke(actor_text capability, actor_text action, actor_text payload) {
    actor_result result;
    actor_import_invoke(capability.at, capability.size, action.at, action.size, payload.at, payload.size, &result);
    return result;
}

/* ---- exports */

#define ACTOR_EXPORT(name) __attribute__((export_name("airssys:core/component-lifecycle@1.0.0#" name)))
#define ACTOR_AFTER(name) __attribute__((export_name("cabi_post_airssys:core/component-lifecycle@1.0.0#" name)))

static actor_answer actor_answered;

ACTOR_EXPORT("initialize") actor_answer *actor_export_initialize(const char *at, size_t size) {
    actor_answered = actor_itself.on_start ? actor_itself.on_start((actor_text){at, size}) : actor_nothing();
    return &actor_answered;
}
ACTOR_EXPORT("handle-message")
actor_answer *actor_export_handle_message(const char *sender, size_t sender_size, const char *payload,
                                          size_t payload_size, uint32_t published, const char *topic,
                                          size_t topic_size, uint32_t wants_answer) {
    actor_message message = {{sender, sender_size}, {payload, payload_size}, published, {NULL, 0}, wants_answer};
    if (published) message.topic = (actor_text){topic, topic_size};
    actor_answered = actor_itself.on_message ? actor_itself.on_message(&message) : actor_nothing();
    return &actor_answered;
}
/* The outcome's two cases share their places: a payload's address and size, an error's kind and up to three words. */
ACTOR_EXPORT("handle-callback")
actor_answer *actor_export_handle_callback(uint64_t correlation, uint32_t failed, uint32_t first, uint64_t second,
                                           uint64_t third, uint64_t fourth) {
    actor_callback callback = {.correlation = correlation, .failed = failed};
    if (!failed) {
        callback.payload = (actor_text){(const char *)(uintptr_t)first, (size_t)second};
    } else {
        callback.error.kind = (uint8_t)first;
        if (first == ACTOR_OVER_QUOTA) {
            callback.error.quota.usage = second;
            callback.error.quota.limit = third;
            callback.error.quota.retry_after_ms = fourth;
        } else if (first == ACTOR_TOO_LARGE) {
            callback.error.limit = second;
        } else {
            callback.error.reason = (actor_text){(const char *)(uintptr_t)second, (size_t)third};
        }
    }
    actor_answered = actor_itself.on_callback ? actor_itself.on_callback(&callback) : actor_nothing();
    return &actor_answered;
}
ACTOR_EXPORT("metadata") const actor_metadata *actor_export_metadata(void) { return &actor_itself.metadata; }
ACTOR_EXPORT("health") uint32_t actor_export_health(void) {
    uint32_t health = actor_itself.on_health ? actor_itself.on_health() : ACTOR_HEALTHY;
    actor_forget();
    return health;
}
ACTOR_EXPORT("shutdown") void actor_export_shutdown(void) {
    if (actor_itself.on_shutdown) actor_itself.on_shutdown();
    actor_forget();
}
ACTOR_AFTER("initialize") void actor_after_initialize(actor_answer *answer) { actor_forget(); }
ACTOR_AFTER("handle-message") void actor_after_handle_message(actor_answer *answer) { actor_forget(); }
ACTOR_AFTER("handle-callback") void actor_after_handle_callback(actor_answer *answer) { actor_forget(); }

#endif
