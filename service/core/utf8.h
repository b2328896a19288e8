/* UTF-8 (RFC 3629). */
#ifndef DESCENT_CORE_UTF8_H
#define DESCENT_CORE_UTF8_H

#include <stddef.h>

/* Bytes of the character at text, of which `size` > 0 bytes are there; 0 when it is none: an
 * overlong form, a surrogate, above U+10FFFF, cut off, or a stray byte. */
size_t utf8_length(const char *text, size_t size);

#endif
