/* Snapshots in addresses and answers: what their endpoints share. */
#ifndef DESCENT_API_SNAPSHOT_JSON_H
#define DESCENT_API_SNAPSHOT_JSON_H

#include "api/endpoint.h"
#include "api/json_text.h"
#include "service/session/engine.h"

/* {number} of the path. SNAPSHOT_NOT_FOUND for what can be none. */
enum status snapshot_number(const struct request *request, uint64_t *number, struct fault *fault);

/* The object of a snapshot. */
void snapshot_write(struct json_text *text, const struct snapshot_view *view);

/* 200 or 201 (with Location) with it. */
struct reply snapshot_reply(const struct request *request, const struct snapshot_view *view,
                            unsigned http);

#endif
