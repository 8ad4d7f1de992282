/* An actor for measuring. What it is sent as a request comes back as it is, but for the orders, which begin with "!":
 *
 *   !count                     messages that came without a wish for an answer: "COUNT FIRST_NS LAST_NS", and begins anew
 *   !send COUNT BYTES TO       sends so many messages of so many bytes: "ACCEPTED NANOSECONDS"
 *   !ask COUNT BYTES TO        asks so often, one request after the other's answer; how it went is told by !asked
 *   !asked                     "MISSING FAILED P50_NS P99_NS"
 */
#include "actor.h"

#define MOST 20000

static uint64_t counted, first_ns, last_ns;
static uint32_t took_ns[MOST];
static uint32_t to_ask, answered, failed;
static uint64_t asked_ns;
static char receiver[256], block[65536];
static actor_text receiver_text, block_text;

static bool starts(const char *line, const char *with) {
    while (*with)
        if (*line++ != *with++) return false;
    return true;
}
static uint64_t number(const char **line, const char *end) {
    uint64_t value = 0;
    while (*line < end && **line == ' ') ++*line;
    while (*line < end && **line >= '0' && **line <= '9') value = value * 10 + (uint64_t)(*(*line)++ - '0');
    while (*line < end && **line == ' ') ++*line;
    return value;
}
static actor_answer numbers(const uint64_t *values, int count) {
    char *line = actor_allocate(128), *at = line;
    for (int i = 0; i < count; i++) {
        char digits[20];
        int size = 0;
        uint64_t rest = values[i];
        do digits[size++] = (char)('0' + rest % 10);
        while (rest /= 10);
        if (i) *at++ = ' ';
        while (size) *at++ = digits[--size];
    }
    return actor_ok((actor_text){line, (size_t)(at - line)});
}

/* Reads "COUNT BYTES TO". */
static uint64_t task(const char *line, const char *end) {
    uint64_t count = number(&line, end), size = number(&line, end);
    receiver_text = (actor_text){receiver, 0};
    while (line < end && receiver_text.size < sizeof receiver) receiver[receiver_text.size++] = *line++;
    block_text = (actor_text){block, size < sizeof block ? size : sizeof block};
    for (size_t i = 0; i < block_text.size; i++) block[i] = (char)('a' + i % 26);
    return count;
}

static void ask(void) {
    asked_ns = actor_now_ns();
    if (actor_request(receiver_text, block_text, 5000).failed) failed++, to_ask = 0;
}

static void sift(uint32_t root, uint32_t size) {
    for (uint32_t child; (child = 2 * root + 1) < size; root = child) {
        if (child + 1 < size && took_ns[child + 1] > took_ns[child]) child++;
        if (took_ns[root] >= took_ns[child]) return;
        uint32_t swap = took_ns[root];
        took_ns[root] = took_ns[child], took_ns[child] = swap;
    }
}
static void sort(void) {
    for (uint32_t i = answered / 2; i-- > 0;) sift(i, answered);
    for (uint32_t end = answered; end-- > 1;) {
        uint32_t swap = took_ns[0];
        took_ns[0] = took_ns[end], took_ns[end] = swap;
        sift(0, end);
    }
}

static actor_answer on_message(const actor_message *message) {
    const char *line = message->payload.at, *end = line + message->payload.size;
    if (!message->wants_answer) {
        last_ns = actor_now_ns();
        if (!counted++) first_ns = last_ns;
        return actor_nothing();
    }
    if (line == end || *line != '!') return actor_ok(message->payload);
    if (message->payload.size >= 6 && starts(line, "!asked")) {
        sort();
        uint32_t middle = answered / 2, high = answered - 1 - answered / 100;
        uint64_t values[] = {to_ask, failed, answered ? took_ns[middle] : 0, answered ? took_ns[high] : 0};
        return numbers(values, 4);
    }
    if (message->payload.size >= 6 && starts(line, "!count")) {
        uint64_t values[] = {counted, first_ns, last_ns};
        counted = first_ns = last_ns = 0;
        return numbers(values, 3);
    }
    if (message->payload.size >= 6 && starts(line, "!send ")) {
        uint64_t count = task(line + 6, end), accepted = 0, began_ns = actor_now_ns();
        for (uint64_t i = 0; i < count; i++) accepted += !actor_send(receiver_text, block_text).failed;
        uint64_t values[] = {accepted, actor_now_ns() - began_ns};
        return numbers(values, 2);
    }
    if (message->payload.size >= 5 && starts(line, "!ask ")) {
        uint64_t count = task(line + 5, end);
        to_ask = count < MOST ? (uint32_t)count : MOST, answered = failed = 0;
        if (to_ask) ask();
        return numbers(&(uint64_t){to_ask}, 1);
    }
    return actor_failure(ACTOR_TEXT("no such order"));
}

static actor_answer on_callback(const actor_callback *callback) {
    if (!to_ask) return actor_nothing();
    uint64_t now_ns = actor_now_ns();
    if (callback->failed) failed++;
    else took_ns[answered++] = now_ns - asked_ns < UINT32_MAX ? (uint32_t)(now_ns - asked_ns) : UINT32_MAX;
    if (--to_ask) ask();
    return actor_nothing();
}

ACTOR("bench", "1.0.0", "For measuring", .on_message = on_message, .on_callback = on_callback)
