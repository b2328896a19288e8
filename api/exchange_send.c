/* The reply of an exchange on its way out: its last header fields, its range. */
#include "api/exchange_stages.h"

#include <strings.h>

#include "api/config.h"
#include "service/core/clock.h"
#include "service/core/contract.h"

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
    uint64_t now_us = clock_monotonic_us();
    exchange_answered(exchange, range.size, now_us);
    return watch_set(&exchange->watched, WATCH_SILENT,
                     exchange_deadline(exchange, now_us, range.size));
}

ptrdiff_t exchange_read(struct exchange *exchange, uint64_t at, void *out, size_t capacity)
{
    const struct stream *stream = &exchange->reply.stream;

    if (!watch_set(&exchange->watched, WATCH_NONE, 0))
        return -1;
    ptrdiff_t size = stream->read(stream->context, at, out, capacity);
    if (size > 0)
        exchange_streamed(exchange, (uint64_t)size);
    /* Every piece earns the time that the client may take for it. */
    if (!watch_set(&exchange->watched, WATCH_SILENT,
                   exchange_deadline(exchange, clock_monotonic_us(), capacity)))
        return -1;
    return size;
}
