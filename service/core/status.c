/* The status table and faults. */
#include "service/core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "service/core/contract.h"

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

/* A cut in the middle of a UTF-8 character would make the problem document invalid: drop the broken
 * tail. */
static void cut_at_character(char *text)
{
    size_t length = strlen(text);
    size_t start = length;

    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t need = lead < 0x80 ? 0 : lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (length - start < need)
        text[start - 1] = '\0';
}

enum status fault_set(struct fault *fault, enum status status, const char *where,
                      const char *detail, ...)
{
    if (fault != NULL) {
        va_list arguments;
        fault->status = status;
        fault->extra_name = NULL;
        fault->extra = 0;
        snprintf(fault->where, sizeof fault->where, "%s", where);
        cut_at_character(fault->where);
        va_start(arguments, detail);
        vsnprintf(fault->detail, sizeof fault->detail, detail, arguments);
        va_end(arguments);
        cut_at_character(fault->detail);
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
    cut_at_character(where);
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
    cut_at_character(out);
    return out;
}
