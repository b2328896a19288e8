/* What clients are told of operations that will go. */
#include "api/deprecation.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "service/core/contract.h"

enum { DATE_BYTES = 40 };

static const struct deprecation deprecations[] = {
#define DEPRECATION(operation, since, sunset, link) {#operation, since, sunset, link},
#include "api/deprecations.def"
#undef DEPRECATION
    {.operation = NULL},
};

const struct deprecation *deprecation_at(size_t index)
{
    size_t count = sizeof deprecations / sizeof *deprecations - 1;

    return index < count ? &deprecations[index] : NULL;
}

const struct deprecation *deprecation_find(const char *operation)
{
    const struct deprecation *at = deprecations;

    while (at->operation != NULL && strcmp(at->operation, operation) != 0)
        at++;
    return at->operation != NULL ? at : NULL;
}

bool deprecation_date(const char *text, int64_t *out)
{
    struct tm date = {.tm_isdst = 0};
    int used = 0;

    if (strlen(text) != sizeof "2000-01-01" - 1 || strspn(text, "0123456789-") != strlen(text) ||
        sscanf(text, "%4d-%2d-%2d%n", &date.tm_year, &date.tm_mon, &date.tm_mday, &used) != 3 ||
        text[used] != '\0')
        return false;
    struct tm asked = date;
    date.tm_year -= 1900;
    date.tm_mon -= 1;
    *out = (int64_t)timegm(&date);
    /* A 31st of June became a first of July. */
    return date.tm_year + 1900 == asked.tm_year && date.tm_mon + 1 == asked.tm_mon &&
           date.tm_mday == asked.tm_mday;
}

/* "Sun, 31 Jan 2027 00:00:00 GMT" (RFC 9110, 5.6.7). */
static const char *http_date(struct arena *arena, int64_t unix_s)
{
    char text[DATE_BYTES];
    time_t at = (time_t)unix_s;
    struct tm date;

    gmtime_r(&at, &date);
    size_t size = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &date);
    POST(size > 0);
    return arena_copy(arena, text, size);
}

void deprecation_tell(const struct deprecation *deprecation, struct arena *arena,
                      struct reply *reply)
{
    int64_t since, sunset;

    if (deprecation == NULL || !deprecation_date(deprecation->since, &since))
        return;
    reply_header(reply, "Deprecation", arena_format(arena, "@%" PRId64, since));
    if (deprecation_date(deprecation->sunset, &sunset))
        reply_header(reply, "Sunset", http_date(arena, sunset));
    reply_header(
        reply, "Link",
        arena_format(arena, "<%s>; rel=\"deprecation\"; type=\"text/html\"", deprecation->link));
}
