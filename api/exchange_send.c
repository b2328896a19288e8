/* The reply of an exchange on its way out: its last header fields, its range. */
#include "api/exchange_stages.h"

#include <strings.h>

#include "api/config.h"
#include "api/cors.h"
#include "api/deprecation.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/metric.h"

/* The system holds so much of a reply for a client that does not read it; for more it is asked. */
enum { LARGE_BYTES = 64 * 1024 };

/* Of what goes out: to HEAD that is nothing (RFC 9530, B.2). What a 304 says would be taken for
 * the stored answer's, and of a stream nothing is known yet. */
static void tell_digest(struct exchange *exchange, const struct span *parts, size_t count)
{
    struct reply *reply = &exchange->reply;

    if (reply->http != 204 && reply->http != 304 && reply->stream.close == NULL)
        content_digest_tell(&exchange->request, reply, parts,
                            exchange->request.method == METHOD_HEAD ? 0 : count);
}

/* Codes the reply, cuts its range and completes its header; returns how many bytes are to go. */
static uint64_t complete(struct exchange *exchange, struct span parts[RANGE_PARTS], size_t *count)
{
    struct reply *reply = &exchange->reply;
    bool cache_told = false;

    exchange_code(exchange);
    struct range range = range_apply(&exchange->request, reply);
    for (size_t i = 0; i < reply->header_count; i++)
        cache_told |= strcasecmp(reply->headers[i].name, "Cache-Control") == 0;
    if (!cache_told)
        reply_header(reply, "Cache-Control", "no-store");
    reply_header(reply, "Request-Id", exchange->id);
    if (exchange->request.route != NULL)
        deprecation_tell(deprecation_find(exchange->request.route->operation), &exchange->arena,
                         reply);
    cors_tell(&exchange->request, reply);
    *count = range_cut(reply, &range, parts);
    tell_digest(exchange, parts, *count);
    return range.size;
}

/* Bytes that are in memory for this client alone: the weights of now are the session's. */
static uint64_t own_bytes(const struct reply *reply)
{
    uint64_t size = reply->head.size + reply->tail.size;

    if (reply->buffer != NULL && !buffer_shared(reply->buffer))
        size += reply->buffer->size;
    if (reply->stream.close != NULL && reply->stream.size != STREAM_OPEN)
        size += reply->stream.size;
    return size > LARGE_BYTES ? size : 0;
}

/* Clients that do not read must not fill the memory: of large replies there may be as many bytes
 * at once as of bodies. One alone always may, and what was done is told whatever it takes. */
static bool hold(struct exchange *exchange)
{
    struct commons *commons = exchange->commons;
    enum method method = exchange->request.method;
    bool may_refuse = method == METHOD_GET || method == METHOD_HEAD;
    uint64_t max = commons->config->inflight_bytes_max, size = own_bytes(&exchange->reply);
    uint64_t used = atomic_load(&commons->reply_bytes);

    if (size == 0)
        return true;
    do {
        if (may_refuse && used > 0 && (size > max || used > max - size))
            return false;
    } while (!atomic_compare_exchange_weak(&commons->reply_bytes, &used, used + size));
    exchange->reply_held = size;
    metric_move(GAUGE_REPLY_BYTES, 0, (int64_t)size);
    return true;
}

void exchange_let_go(struct exchange *exchange)
{
    if (exchange->reply_held == 0)
        return;
    metric_move(GAUGE_REPLY_BYTES, 0, -(int64_t)exchange->reply_held);
    atomic_fetch_sub(&exchange->commons->reply_bytes, exchange->reply_held);
    exchange->reply_held = 0;
}

bool exchange_send(struct exchange *exchange, struct span parts[RANGE_PARTS], size_t *count)
{
    PRE(exchange->stage == STAGE_REPLY);
    struct fault fault;
    if (!hold(exchange)) { /* before it is coded: who hears 503 costs no more */
        fault_set(&fault, STATUS_OVERLOADED, "",
                  "answers that clients have yet to read fill the memory that the server has for "
                  "them; try again");
        exchange_replace(exchange, &fault);
    }
    uint64_t size = complete(exchange, parts, count);
    if (exchange_distrust(exchange))
        size = complete(exchange, parts, count);
    uint64_t now_us = clock_monotonic_us();
    uint64_t until_us = exchange_deadline(exchange, now_us, size);
    if (!watch_set(&exchange->watched, WATCH_SILENT, until_us))
        return false;
    if (size > LARGE_BYTES)
        exchange->reply_until_us = until_us;
    exchange_answered(exchange, size, now_us);
    return true;
}

static void start_following(struct exchange *exchange)
{
    exchange->follows = true;
    metric_move(GAUGE_WAITING, METRIC_AWAITED_EVENTS, 1);
    atomic_fetch_add(&exchange->commons->followers, 1);
    exchange_let_stop(exchange);
}

/* Whether the client is to end here, and may come back to be let in anew: the server drains, or the
 * token is no longer good. */
static bool must_end(const struct exchange *exchange)
{
    struct commons *commons = exchange->commons;

    return atomic_load(&commons->draining) ||
           (commons->access != NULL && !access_stands(commons->access, &exchange->pass));
}

/* The next piece of a stream that follows something. */
static ptrdiff_t follow(struct exchange *exchange, uint64_t at, void *out, size_t capacity)
{
    const struct stream *stream = &exchange->reply.stream;
    ptrdiff_t size = STREAM_LATER;

    if (!exchange->follows)
        start_following(exchange);
    while (size == STREAM_LATER) {
        if (must_end(exchange))
            return 0;
        if (watch_left(&exchange->watched))
            return -1;
        size = stream->read(stream->context, at, out, capacity);
    }
    return size;
}

ptrdiff_t exchange_read(struct exchange *exchange, uint64_t at, void *out, size_t capacity)
{
    const struct stream *stream = &exchange->reply.stream;

    if (!watch_set(&exchange->watched, WATCH_NONE, 0))
        return -1;
    ptrdiff_t size = stream->follows ? follow(exchange, at, out, capacity)
                                     : stream->read(stream->context, at, out, capacity);
    if (size > 0)
        exchange_streamed(exchange, (uint64_t)size);
    /* Every piece earns the time that the client may take for it. */
    exchange->reply_until_us = exchange_deadline(exchange, clock_monotonic_us(), capacity);
    if (!watch_set(&exchange->watched, WATCH_SILENT, exchange->reply_until_us))
        return -1;
    return size;
}
