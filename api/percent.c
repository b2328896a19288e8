/* Percent decoding. */
#include "api/percent.h"

#include <stdbool.h>
#include <string.h>

#include "service/core/utf8.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is_utf8(const char *text, size_t size)
{
    for (size_t i = 0, length; i < size; i += length)
        if ((length = utf8_length(text + i, size - i)) == 0)
            return false;
    return true;
}

enum status percent_decode(struct arena *arena, const char *text, size_t size, const char **out,
                           struct fault *fault)
{
    char *decoded = arena_take(arena, size + 1);
    size_t used = 0;

    if (decoded == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '%') {
            decoded[used++] = text[i];
            continue;
        }
        int high = size - i > 2 ? hex_digit(text[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
        if (low < 0)
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "the address has a %% that two hexadecimal digits do not follow; "
                             "write a percent sign as %%25");
        if (high == 0 && low == 0)
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "the address has %%00; no name here can hold a NUL");
        decoded[used++] = (char)(high * 16 + low);
        i += 2;
    }
    decoded[used] = '\0';
    if (!is_utf8(decoded, used))
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the address does not decode to UTF-8; escape the UTF-8 bytes of a name");
    *out = decoded;
    return STATUS_OK;
}
