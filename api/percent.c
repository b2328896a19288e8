/* Percent decoding. */
#include "api/percent.h"

#include <stdbool.h>
#include <string.h>

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

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(const unsigned char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        unsigned char lead = text[i++];
        if (lead < 0x80)
            continue;
        unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        size_t more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || size - i < more)
            return false;
        for (; more > 0; more--, low = 0x80, high = 0xBF, i++)
            if (text[i] < low || text[i] > high)
                return false;
    }
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
    if (!is_utf8((const unsigned char *)decoded, used))
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the address does not decode to UTF-8; escape the UTF-8 bytes of a name");
    *out = decoded;
    return STATUS_OK;
}
