/* Requests that wait: how long, and what is told of a round that is open still. */
#ifndef DESCENT_API_WAITING_H
#define DESCENT_API_WAITING_H

#include "api/endpoint.h"
#include "api/json_text.h"
#include "service/session/engine.h"

/* Seconds that `Prefer: wait=N` asks for, at most the server's --wait-s-max; 0: none, or it cannot
 * be read, as one may pass over a preference. */
uint64_t waiting_preferred_s(const struct request *request);

/* Says that the preference was heeded. */
void waiting_applied(struct request *request, struct reply *reply, uint64_t wait_s);

/* 202 of a contribution that is on disk and whose round is open; worker NULL: it named none. Of a
 * dry run, which leaves nothing behind, 200. */
struct reply waiting_reply(struct request *request, const struct outcome *outcome,
                           const char *worker, bool dry_run);

/* "round": the one that is open, or null where each gradient is a step of its own. */
void round_write(struct json_text *text, const struct session_view *view);

#endif
