/* Base64 (RFC 4648, section 4, padded). */
#ifndef DESCENT_API_BASE64_H
#define DESCENT_API_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Decodes exactly `size` bytes into out; false when the text is not base64 of just so many. */
bool base64_read(const char *text, size_t length, unsigned char *out, size_t size);

#endif
