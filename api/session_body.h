/* Creating a session from a request: what POST and PUT share. */
#ifndef DESCENT_API_SESSION_BODY_H
#define DESCENT_API_SESSION_BODY_H

#include "api/endpoint.h"

/* Reads the body (JSON or safetensors), creates the session under `id` (NULL: the server picks
 * one), replies 201, 200 for a repeat of the same request, or the problem. */
struct reply session_create_reply(struct engine *engine, struct request *request, const char *id);

#endif
