/* Publishes what it is sent, on the topic news.today, and answers to how many. */
#include "actor.h"

static actor_answer on_message(const actor_message *message) {
    actor_result result = actor_publish(ACTOR_TEXT("news.today"), message->payload);
    if (result.failed) return (actor_answer){.failed = 1, .error = result.error};
    char *digits = actor_allocate(16), *at = digits + 16;
    do *--at = (char)('0' + result.count % 10);
    while (result.count /= 10);
    return actor_ok((actor_text){at, (size_t)(digits + 16 - at)});
}

ACTOR("publisher", "1.0.0", "Publishes what it is sent", .on_message = on_message)
