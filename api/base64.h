/* Base64 (RFC 4648, section 4, padded). */
#ifndef DESCENT_API_BASE64_H
#define DESCENT_API_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Decodes exactly `size` bytes into out; false when the text is not base64 of just so many. */
bool base64_read(const char *text, size_t length, unsigned char *out, size_t size);

/* Encodes; out has room for BASE64_SIZE(size) characters, and no NUL comes after them. */
#define BASE64_SIZE(size) (((size) + 2) / 3 * 4)
void base64_write(const unsigned char *data, size_t size, char *out);

#endif
