/* Logs the news, keeps the latest in its storage, and answers with it whoever asks. */
#include "actor.h"

static actor_answer on_message(const actor_message *message) {
    const actor_text key = ACTOR_TEXT("news:latest");
    if (message->published) {
        actor_field fields[] = {{ACTOR_TEXT("from"), message->sender}, {ACTOR_TEXT("topic"), message->topic}};
        actor_log_fields(ACTOR_INFO, message->payload, fields, 2); /* not UTF-8: the host ends us, a log is text */
        actor_result result = actor_set(key, message->payload);
        return result.failed ? (actor_answer){.failed = 1, .error = result.error} : actor_nothing();
    }
    actor_result result = actor_get(key);
    if (result.failed) return (actor_answer){.failed = 1, .error = result.error};
    return actor_ok(result.optional.there ? result.optional.value : ACTOR_TEXT("no news yet"));
}

ACTOR("subscriber", "1.0.0", "Keeps the latest news", .on_message = on_message)
