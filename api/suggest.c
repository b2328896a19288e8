/* What may have been meant. Likeness is counted in bytes to insert or delete, in any case: "adamw"
 * is AdamW, and "torch.Adam" is nearer to "torch.optim.Adam" than to "mxnet.Adam". */
#include "api/suggest.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_MAX = 128, LENGTH_MAX = 64 };

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

/* Of the first LENGTH_MAX bytes of each. */
static size_t distance(const char *a, const char *b)
{
    size_t row[LENGTH_MAX + 1], length = strnlen(b, LENGTH_MAX);

    for (size_t k = 0; k <= length; k++)
        row[k] = k;
    for (size_t i = 0; i < LENGTH_MAX && a[i] != '\0'; i++) {
        size_t before = row[0]; /* of both without their last byte */
        row[0] = i + 1;
        for (size_t k = 0; k < length; k++) {
            size_t least = row[k] < row[k + 1] ? row[k] + 1 : row[k + 1] + 1;
            if (lower(a[i]) == lower(b[k]))
                least = before;
            before = row[k + 1];
            row[k + 1] = least;
        }
    }
    return row[length];
}

char *suggest(const char *wanted, const char *(*name_at)(size_t index), size_t most, char *out,
              size_t size)
{
    size_t away[NAMES_MAX], count = 0, used = 0;
    bool taken[NAMES_MAX] = {false};

    for (; count < NAMES_MAX && name_at(count) != NULL; count++)
        away[count] = distance(wanted, name_at(count));
    out[0] = '\0';
    for (size_t listed = 0; listed < count; listed++) {
        size_t best = count;
        for (size_t i = 0; i < count; i++)
            if (!taken[i] && (best == count || away[i] < away[best]))
                best = i;
        const char *name = name_at(best);
        bool fits = listed < most && used + strlen(name) + sizeof ", , ..." <= size;
        taken[best] = true;
        used += (size_t)snprintf(out + used, size - used, "%s%s", listed > 0 ? ", " : "",
                                 fits ? name : "...");
        if (!fits)
            break;
    }
    return out;
}
