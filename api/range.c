/* A single byte range of a reply. */
#include "api/range.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* Digits at *at; what would overflow is as large as can be, since it lies beyond any end. */
static bool digits(const char **at, uint64_t *out)
{
    const char *start = *at;

    for (*out = 0; **at >= '0' && **at <= '9'; ++*at) {
        uint64_t digit = (uint64_t)(**at - '0');
        *out = *out > (UINT64_MAX - digit) / 10 ? UINT64_MAX : *out * 10 + digit;
    }
    return *at > start;
}

struct range range_find(const char *range, const char *if_range, const char *etag, uint64_t total)
{
    const struct range whole = {.kind = RANGE_WHOLE, .first = 0, .size = total};
    const struct range outside = {.kind = RANGE_OUTSIDE};
    uint64_t first = 0, last = 0;

    if (range == NULL || strncasecmp(range, "bytes=", 6) != 0)
        return whole;
    /* A weak or unknown validator, a date as well, promises nothing about bytes. */
    if (if_range != NULL && (etag == NULL || if_range[0] != '"' || strcmp(if_range, etag) != 0))
        return whole;
    range += 6;
    bool has_first = digits(&range, &first);
    if (*range++ != '-')
        return whole;
    bool has_last = digits(&range, &last);
    if (*range != '\0' || (!has_first && !has_last) || (has_first && has_last && last < first))
        return whole;
    if (!has_first) { /* the last so many */
        if (last == 0 || total == 0)
            return outside;
        first = last < total ? total - last : 0;
        last = total - 1;
    } else {
        if (first >= total)
            return outside;
        if (!has_last || last >= total)
            last = total - 1;
    }
    return (struct range){.kind = RANGE_PART, .first = first, .size = last - first + 1};
}

static uint64_t total_size(const struct reply *reply)
{
    return (uint64_t)reply->head.size + reply->size + reply->tail.size;
}

struct range range_apply(const struct request *request, struct reply *reply)
{
    uint64_t total = total_size(reply);
    struct range range = {.kind = RANGE_WHOLE, .size = total};
    const char **etag = reply_find(reply, "ETag");
    struct fault fault;

    if (!reply->ranges || reply->http != 200)
        return range;
    if (request->method == METHOD_GET) /* Range means nothing to any other method (14.2) */
        range = range_find(request_header(request, "Range"), request_header(request, "If-Range"),
                           etag != NULL ? *etag : NULL, total);
    if (range.kind == RANGE_OUTSIDE) {
        fault_set(&fault, STATUS_RANGE_NOT_SATISFIABLE, "", "there are %llu bytes",
                  (unsigned long long)total);
        buffer_release(reply->buffer);
        *reply = reply_fault(request, &fault);
        reply_header(reply, "Content-Range",
                     arena_format(request->arena, "bytes */%llu", (unsigned long long)total));
        return (struct range){.kind = RANGE_WHOLE, .size = total_size(reply)};
    }
    if (range.kind == RANGE_PART) {
        reply->http = 206;
        reply_header(reply, "Content-Range",
                     arena_format(request->arena, "bytes %llu-%llu/%llu",
                                  (unsigned long long)range.first,
                                  (unsigned long long)(range.first + range.size - 1),
                                  (unsigned long long)total));
    }
    reply_header(reply, "Accept-Ranges", "bytes");
    return range;
}

size_t range_cut(const struct reply *reply, const struct range *range,
                 struct span parts[RANGE_PARTS])
{
    const struct span whole[RANGE_PARTS] = {
        reply->head,
        span_of(reply->buffer != NULL ? reply->buffer->data + reply->offset : NULL, reply->size),
        reply->tail,
    };
    uint64_t begin = range->first, end = range->first + range->size, at = 0;
    size_t count = 0;

    for (size_t i = 0; i < RANGE_PARTS; at += whole[i++].size) {
        uint64_t from = begin > at ? begin - at : 0;
        uint64_t to = end < at + whole[i].size ? end - at : whole[i].size;
        if (end > at && from < to)
            parts[count++] = span_of(whole[i].data + from, (size_t)(to - from));
    }
    return count;
}
