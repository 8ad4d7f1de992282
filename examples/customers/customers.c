/* Asks the capability customer-db: of {"read": {"id": 1}} `read` is the action and what follows its parameters. */
#include "actor.h"

static actor_answer on_message(const actor_message *message) {
    const char *at = message->payload.at, *end = at + message->payload.size;
    const actor_text usage = ACTOR_TEXT("expected {\"ACTION\": {...}}");
    while (at < end && *at != '"') at++;
    const char *action = ++at;
    while (at < end && *at != '"') at++;
    if (at >= end) return actor_failure(usage);
    const size_t action_size = (size_t)(at - action);
    while (at < end && *at != ':') at++;
    while (end > at && *--end != '}') continue;
    if (at >= end) return actor_failure(usage);
    at++;
    const actor_result rows =
        actor_invoke(ACTOR_TEXT("customer-db"), (actor_text){action, action_size}, (actor_text){at, (size_t)(end - at)});
    return rows.failed ? (actor_answer){.failed = 1, .error = rows.error} : actor_ok(rows.value);
}

ACTOR("customers", "1.0.0", "Asks for customers", .on_message = on_message)
