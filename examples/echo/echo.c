/* Answers what it is sent. */
#include "actor.h"

static actor_answer on_message(const actor_message *message) { return actor_ok(message->payload); }

ACTOR("echo", "1.0.0", "Answers what it is sent", .on_message = on_message)
