/* Base64. */
#include "api/base64.h"

#include <stdint.h>

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_read(const char *text, size_t length, unsigned char *out, size_t size)
{
    size_t used = 0;

    if (length != (size + 2) / 3 * 4)
        return false;
    for (size_t i = 0; i < length; i += 4) {
        size_t bytes = size - used < 3 ? size - used : 3;
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            int value = k <= bytes ? digit(text[i + k]) : text[i + k] == '=' ? 0 : -1;
            if (value < 0)
                return false;
            group = group << 6 | (uint32_t)value;
        }
        /* Bits beyond the last byte must be zero: one text for one value. */
        if (bytes < 3 && (group & ((1u << (8 * (3 - bytes))) - 1)) != 0)
            return false;
        for (size_t k = 0; k < bytes; k++)
            out[used++] = (unsigned char)(group >> (16 - 8 * k));
    }
    return true;
}

void base64_write(const unsigned char *data, size_t size, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < size; i += 3) {
        size_t bytes = size - i < 3 ? size - i : 3;
        uint32_t group = 0;
        for (size_t k = 0; k < 3; k++)
            group = group << 8 | (k < bytes ? data[i + k] : 0u);
        for (size_t k = 0; k < 4; k++)
            *out++ = k <= bytes ? digits[group >> (18 - 6 * k) & 63] : '=';
    }
}
