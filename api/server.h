/* The HTTP server. server.c is the only user of libmicrohttpd. */
#ifndef DESCENT_API_SERVER_H
#define DESCENT_API_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "service/core/status.h"

struct config;
struct engine;
struct server;

/* Binds, starts threads and serves engine until server_stop. `engine` may be NULL while it
 * recovers: then only /livez and /readyz answer anything but 503 draining. `config` must outlive
 * the server. The fault says which address failed and why. */
enum status server_start(const struct config *config, struct engine *engine, struct server **out,
                         struct fault *fault);

/* The address in use, "HOST:PORT" with the port that was picked (IPv6 in brackets). */
const char *server_address(const struct server *server);

/* Reads again what may have changed: the tokens. What is wrong with it goes to the log. */
void server_reload(struct server *server);

/* Drains, waits for running requests up to the drain timeout, closes everything, frees. False when
 * requests still ran at the end of that time: then nothing was freed, the engine is in use, and
 * only leaving the process is safe. */
bool server_stop(struct server *take_server);

#endif
