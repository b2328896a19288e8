/* version "-" trace-id "-" parent-id "-" flags
 * https://www.w3.org/TR/trace-context/#traceparent-header */
#include "api/trace.h"

#include <stddef.h>
#include <string.h>

static const char digits[] = "0123456789abcdef";

/* Takes so many digits at *at into out (NULL: nowhere). `zeros`: they may all be 0. */
static bool take(const char **at, size_t count, bool zeros, char *out)
{
    if (strspn(*at, digits) != count || (!zeros && strspn(*at, "0") == count))
        return false;
    if (out != NULL) {
        memcpy(out, *at, count);
        out[count] = '\0';
    }
    *at += count;
    return true;
}

static bool dash(const char **at)
{
    return *(*at)++ == '-';
}

bool trace_parse(const char *value, struct trace *out)
{
    const char *at = value;
    bool first = strncmp(value, "00", 2) == 0;

    if (strncmp(value, "ff", 2) == 0)
        return false;
    return take(&at, 2, true, NULL) && dash(&at) &&
           take(&at, TRACE_ID_CHARACTERS, false, out->trace_id) && dash(&at) &&
           take(&at, SPAN_ID_CHARACTERS, false, out->span_id) && dash(&at) &&
           take(&at, 2, true, NULL) && (*at == '\0' || (!first && *at == '-'));
}
