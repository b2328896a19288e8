/* The HTTP server. server*.c are the only users of libmicrohttpd. */
#ifndef DESCENT_API_SERVER_H
#define DESCENT_API_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/status.h"

struct config;
struct engine;
struct server;

/* Holds what options name against what is there: an address, certificate and key. Starts and
 * changes nothing; warns in the log of what is dubious. The fault is one line. */
enum status server_check(const struct config *config, struct fault *fault);

/* The same of who may do what, and the tokens. */
enum status server_check_access(const struct config *config, struct fault *fault);

/* Starts threads and serves engine until server_stop, on `take_socket`, a listening one that came
 * from a service manager, or where `config` says when that is -1. `engine` may be NULL while it
 * recovers: then only /livez and /readyz answer anything but 503 draining. `config` must outlive
 * the server. The fault says which address failed and why. */
enum status server_start(const struct config *config, struct engine *engine, int take_socket,
                         struct server **out, struct fault *fault);

/* The address in use, "HOST:PORT" with the port that was picked (IPv6 in brackets). */
const char *server_address(const struct server *server);

/* "http" or "https". */
const char *server_scheme(const struct server *server);

/* Whether connections are accepted and deadlines kept, as far as can be seen without connecting:
 * the thread that keeps deadlines has run within silence_us, and whoever was waiting to be accepted
 * at the last call is not waiting still with nobody accepted since. *why, when false, says what
 * stands still. From one thread, not while it stops. */
bool server_alive(struct server *server, uint64_t silence_us, const char **why);

/* Takes up anew what options name and what may have changed on disk since. What cannot be read is
 * said in the log, and what was there before stays in use. True when all was taken up. Not two at a
 * time, not while it stops. */
bool server_reload(struct server *server);

/* Says at /readyz for --drain-delay-s that it is leaving; drains, waits for running requests up to
 * the drain timeout, closes everything, frees. False when requests still ran at the end of that
 * time: then nothing was freed, the engine is in use, and only leaving the process is safe. */
bool server_stop(struct server *take_server);

#endif
