/* The steps of a session as server-sent events, for those who follow it. The newest events are kept
 * as text, made once for all followers; who is further behind reads the ledger himself. So memory
 * does not depend on how slowly anybody reads, nor the work for a step much on how many there
 * are. */
#ifndef DESCENT_API_STEPS_FEED_H
#define DESCENT_API_STEPS_FEED_H

#include "api/json_text.h"
#include "service/session/engine.h"

struct feed;

struct follower {
    struct feed *feed;
    struct moment at; /* it was told all up to here */
    uint64_t rest_us; /* monotonic: until then it collects what comes */
};

/* Follows a session from a moment on; `tensors`: lines with what is known of each tensor. False
 * when memory is out. */
bool follower_open(struct follower *follower, struct session *session, bool tensors,
                   const struct moment *at);
void follower_close(struct follower *follower);

/* Writes the next events, whole ones, and moves follower->at past them; nothing when there is
 * nothing new within about wait_s seconds, or the engine drains. SESSION_NOT_FOUND when the session
 * is deleted; after any failure what was written is not to be sent. */
enum status follower_read(struct follower *follower, double wait_s, struct json_text *text,
                          struct fault *fault);

/* Text as it is, and an event's "id" line. */
void event_text(struct json_text *text, const char *words);
void event_id(struct json_text *text, const struct session *session, const struct moment *at);

#endif
