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
