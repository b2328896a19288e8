/* GET .../steps as text/event-stream: a session is followed. */
#ifndef DESCENT_API_STEPS_EVENTS_H
#define DESCENT_API_STEPS_EVENTS_H

#include "api/endpoint.h"
#include "service/session/engine.h"

#define EVENTS_MEDIA_TYPE "text/event-stream"

/* The stream of the session's steps: after the request's Last-Event-ID, else from step `from` on,
 * else (0) from the next. `tensors` as in the listing. INVALID_REQUEST: no such id; HISTORY_GONE,
 * INVALID_FIELD: no such step. */
enum status steps_events(struct request *request, struct session *session, uint64_t from,
                         bool tensors, struct reply *reply, struct fault *fault);

#endif
