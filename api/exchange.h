/* A connection and the one request that is under way on it, without the library that moves its
 * bytes: what is admitted, what is refused and when, memory for the body, deadlines, the reply.
 * server.c drives it; one thread at a time. */
#ifndef DESCENT_API_EXCHANGE_H
#define DESCENT_API_EXCHANGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/access.h"
#include "api/address.h"
#include "api/coding.h"
#include "api/content_digest.h"
#include "api/endpoint.h"
#include "api/guard.h"
#include "api/range.h"
#include "api/trace.h"
#include "api/watch.h"

enum { REQUEST_ID_BYTES_MAX = 64 };

/* What the connections of one server share. */
struct commons {
    const struct config *config;
    struct engine *engine; /* NULL while it recovers */
    struct access *access; /* NULL: nobody is asked for a token */
    struct watch *watch;
    bool loopback; /* only this machine can reach the server */
    uint64_t id_seed;
    _Atomic uint64_t id_next;
    atomic_bool leaving; /* it will drain soon: only who asks whether it is ready hears of it */
    atomic_bool draining;
    _Atomic uint64_t accepted; /* connections, ever */
    _Atomic uint64_t connections;
    /* Requests whose header has come and whose reply has not gone, but for those that are refused
     * and whose body is still to come, however slowly: a stop waits for them. */
    _Atomic uint64_t running;
    _Atomic uint64_t followers; /* streams without an end of their own: not among the running */
    _Atomic uint64_t inflight_bytes; /* bodies and coded replies in memory */
    _Atomic uint64_t reply_bytes;    /* of large replies, each in memory for its client alone */
};

enum stage {
    STAGE_IDLE,   /* nothing of a request is known */
    STAGE_HEADER, /* the request line has come */
    STAGE_BODY,   /* admitted; the body goes to memory */
    STAGE_DROP,   /* refused; the body goes nowhere, `reply` is ready */
    STAGE_REPLY,  /* `reply` is to go out, or is on its way */
};

/* What is told of a request: exchange_tell.c. */
struct account {
    uint64_t received, sent; /* bytes of the bodies */
    uint64_t going;          /* of a large answer: they count as sent when all have gone */
    uint64_t answered_us;    /* when the answer was ready to go; 0: there is none yet */
    bool past;               /* it has gone past the library */
    bool traced;
    struct trace trace;
};

struct exchange {
    struct watched watched;
    struct commons *commons;
    enum stage stage;
    bool surplus; /* opened beyond connections_max, and none was idle: it hears 503, but that the
                     server lives */
    bool counted; /* in the gauge of requests */
    bool awaited; /* in commons->running */
    bool follows; /* in commons->followers */
    bool welcome; /* who sends it may, whatever becomes of it */
    struct arena arena;
    struct request request;
    char *target; /* NULL: memory ran out */
    struct framing framing;
    struct access_pass pass; /* until the reply has gone */
    uint64_t started_us;
    size_t body_used;  /* bytes of it in memory, decoded */
    uint64_t body_max; /* that may be there */
    bool earns;        /* body_max rises with what comes (expansion.h) */
    struct decoding decoding;
    struct content_check check;
    uint64_t charged; /* bytes of commons->inflight_bytes, which a coded reply counts among too */
    struct reply reply;
    uint64_t reply_held; /* of commons->reply_bytes */
    struct account account;
    char remote[PEER_BYTES]; /* the client's address, once it was asked for */
    uint64_t reply_until_us; /* when the client must have it; 0: none went out */
    char id[REQUEST_ID_BYTES_MAX + 1];
};

/* A connection has come, on this socket and with this TLS session, NULL when it is plain; NULL when
 * memory is out. exchange_free before the socket is closed. */
struct exchange *exchange_new(struct commons *commons, int fd, void *tls);
void exchange_free(struct exchange *take_exchange);

/* The request line has come. */
void exchange_begin(struct exchange *exchange, const char *target);

/* The header is complete: request.headers are filled, envelope->target is not looked at. Sets the
 * stage: BODY, DROP, or REPLY when the reply must go out now and close the connection, since the
 * end of the body cannot be trusted, is too far away, or the client waits for leave to send it.
 * False: the connection has expired, cut it. */
bool exchange_admit(struct exchange *exchange, const struct envelope *envelope);

/* A piece of the body. False: cut the connection, too much of a refused body has come. */
bool exchange_receive(struct exchange *exchange, const void *data, size_t size);

/* The body is complete: serves the request, if it was not refused. False: expired, cut it. */
bool exchange_serve(struct exchange *exchange);

/* The reply is about to go: completes its header, counts, and gives the part of it that was
 * asked for as at most three spans that live until exchange_reset. False: expired, cut it. */
bool exchange_send(struct exchange *exchange, struct span parts[RANGE_PARTS], size_t *count);

/* The next piece of a reply that is a stream: its bytes in out, 0 at the end, negative: cut the
 * connection. */
ptrdiff_t exchange_read(struct exchange *exchange, uint64_t at, void *out, size_t capacity);

/* The request cannot be read to its end: writes the answer at once, past the library, and shuts
 * the connection. Nothing may have been written of another answer; does nothing when the reply
 * is on its way or the connection has expired. */
void exchange_break(struct exchange *exchange, const struct fault *fault);

/* The reply has gone (sent), or never will: logs, frees what belonged to the request and waits for
 * the next. */
void exchange_reset(struct exchange *exchange, bool sent);

#endif
