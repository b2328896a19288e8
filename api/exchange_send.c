/* The reply of an exchange on its way out: its last header fields, its range, its log line. */
#include "api/exchange_stages.h"

#include <strings.h>

#include "api/config.h"
#include "api/router.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"

static void log_reply(const struct exchange *exchange, uint64_t bytes)
{
    unsigned http = exchange->reply.http;

    log_write(http >= 500   ? LOG_ERROR
              : http >= 400 ? LOG_INFO
                            : LOG_DEBUG,
              "%s %.200s %u %llu bytes %llu us %s", method_name(exchange->request.method),
              exchange->request.path, http, (unsigned long long)bytes,
              (unsigned long long)(clock_monotonic_us() - exchange->started_us), exchange->id);
}

bool exchange_send(struct exchange *exchange, struct span parts[RANGE_PARTS], size_t *count)
{
    struct reply *reply = &exchange->reply;
    struct range range = range_apply(&exchange->request, reply);
    bool cache_told = false;

    PRE(exchange->stage == STAGE_REPLY);
    for (size_t i = 0; i < reply->header_count; i++)
        cache_told |= strcasecmp(reply->headers[i].name, "Cache-Control") == 0;
    if (!cache_told)
        reply_header(reply, "Cache-Control", "no-store");
    reply_header(reply, "Request-Id", exchange->id);
    *count = range_cut(reply, &range, parts);
    bool known = reply->stream.close != NULL && reply->stream.size != STREAM_OPEN;
    log_reply(exchange, known ? reply->stream.size : range.size);
    exchange->reply_until_us = exchange_deadline(exchange, clock_monotonic_us(), range.size);
    return watch_set(&exchange->watched, WATCH_SILENT, exchange->reply_until_us);
}

ptrdiff_t exchange_read(struct exchange *exchange, uint64_t at, void *out, size_t capacity)
{
    const struct stream *stream = &exchange->reply.stream;

    if (!watch_set(&exchange->watched, WATCH_NONE, 0))
        return -1;
    ptrdiff_t size = stream->read(stream->context, at, out, capacity);
    /* Every piece earns the time that the client may take for it. */
    exchange->reply_until_us = exchange_deadline(exchange, clock_monotonic_us(), capacity);
    if (!watch_set(&exchange->watched, WATCH_SILENT, exchange->reply_until_us))
        return -1;
    return size;
}
