/* The watchdog: deadlines of connections. libmicrohttpd knows inactivity only, so that a byte every
 * two seconds would live for ever; here every phase of a connection has an end. A thread looks
 * every quarter of a second. */
#ifndef DESCENT_API_WATCH_H
#define DESCENT_API_WATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/status.h"

enum watch_phase {
    WATCH_NONE,    /* no deadline: an endpoint is at work */
    WATCH_SILENT,  /* at the deadline the socket is shut: a reply nobody reads */
    WATCH_IDLE,    /* the same: between two requests */
    WATCH_SENT,    /* the reply is with the system: the same while the client does not take it, and
                      when the connection has been idle for too long */
    WATCH_ANSWER,  /* at the deadline 408 is written, then it is shut: a request that does not come
                      to its end */
    WATCH_EXPIRED, /* it was */
};

struct watched {
    struct watched *next, **link;
    int fd;    /* open as long as this is watched */
    void *tls; /* the TLS session, NULL: plain */
    _Atomic uint64_t deadline_us;
    _Atomic uint64_t idle_us; /* the second deadline, of SENT */
    _Atomic int phase;
    atomic_bool late; /* it has expired out of ANSWER */
};

struct watch;

enum status watch_new(struct watch **out, struct fault *fault);
void watch_free(struct watch *take_watch); /* nothing may be watched any more */

/* `tls`: the connection's TLS session, NULL when it is plain. No 408 is written to a connection
 * with one: the thread of the watch may not use the session. */
void watch_add(struct watch *watch, struct watched *watched, int fd, void *tls,
               enum watch_phase phase, uint64_t deadline_us);
void watch_remove(struct watch *watch, struct watched *watched); /* before the socket is closed */

/* Microseconds since the thread last looked. Any thread. */
uint64_t watch_silence_us(const struct watch *watch);

/* Sets the phase and its deadline (clock_monotonic_us); false when the connection has expired
 * already: write nothing to it then. Any thread, no lock. */
bool watch_set(struct watched *watched, enum watch_phase phase, uint64_t deadline_us);

/* Whether the other side has closed its end, or the connection is broken. */
bool watch_left(const struct watched *watched);

/* Whether it has expired out of ANSWER; *size: bytes of the body of the 408 that was written. */
bool watch_late(const struct watched *watched, size_t *size);

/* A reply has been given to the system, which holds megabytes of it for a client that does not
 * read: until deadline_us; and idle_us is the deadline when the client has it all. */
void watch_idle(struct watched *watched, uint64_t deadline_us, uint64_t idle_us);

/* Cuts the connection that has been between two requests for the longest. False: none is. */
bool watch_make_room(struct watch *watch);

/* Writes these bytes, the only answer to a request that does not come to its end, and shuts the
 * connection. False, and nothing is written: its phase is not ANSWER. From the thread of the
 * connection. */
bool watch_answer(struct watched *watched, const char *answer, size_t size);

#endif
