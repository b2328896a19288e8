/* The status table and faults. */
#include "service/core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/utf8.h"

static const struct {
    unsigned http;
    const char *code;
    const char *title;
} statuses[] = {
#define STATUS(name, http, code, title) {http, code, title},
#include "service/core/status.def"
#undef STATUS
};

unsigned status_http(enum status status)
{
    PRE(status < STATUS_COUNT);
    return statuses[status].http;
}

const char *status_code(enum status status)
{
    PRE(status < STATUS_COUNT);
    return statuses[status].code;
}

const char *status_title(enum status status)
{
    PRE(status < STATUS_COUNT);
    return statuses[status].title;
}

/* Names from outside, cut to fit, may leave bytes that are no UTF-8; a problem document must not
 * hold them. */
static void mend_utf8(char *text)
{
    size_t size = strlen(text);

    for (size_t i = 0; i < size;) {
        size_t length = utf8_length(text + i, size - i);
        if (length == 0)
            text[i] = '?';
        i += length == 0 ? 1 : length;
    }
}

enum status fault_set(struct fault *fault, enum status status, const char *where,
                      const char *detail, ...)
{
    if (fault != NULL) {
        char words[sizeof fault->detail]; /* the arguments may be the fault's own words */
        va_list arguments;
        fault->status = status;
        fault->extra_name = NULL;
        fault->extra = 0;
        snprintf(fault->where, sizeof fault->where, "%s", where);
        mend_utf8(fault->where);
        va_start(arguments, detail);
        vsnprintf(words, sizeof words, detail, arguments);
        va_end(arguments);
        mend_utf8(words);
        memcpy(fault->detail, words, strlen(words) + 1);
    }
    return status;
}

enum status fault_extra(struct fault *fault, const char *extra_name, uint64_t extra)
{
    PRE(fault != NULL);
    fault->extra_name = extra_name;
    fault->extra = extra;
    return fault->status;
}

void fault_prefix(struct fault *fault, const char *prefix)
{
    char where[sizeof fault->where];

    if (fault == NULL)
        return;
    snprintf(where, sizeof where, "%s%.*s", prefix, (int)sizeof where - 1, fault->where);
    mend_utf8(where);
    memcpy(fault->where, where, sizeof where);
}

char *pointer_escape(char *out, size_t size, const char *token)
{
    size_t used = 0;

    PRE(size > 2);
    for (; *token != '\0' && used + 3 < size; token++) {
        if (*token == '~' || *token == '/') {
            out[used++] = '~';
            out[used++] = *token == '~' ? '0' : '1';
        } else {
            out[used++] = *token;
        }
    }
    out[used] = '\0';
    mend_utf8(out);
    return out;
}
