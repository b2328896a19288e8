/* Percent decoding of one path segment or one piece of a query (RFC 3986). */
#ifndef DESCENT_API_PERCENT_H
#define DESCENT_API_PERCENT_H

#include <stddef.h>

#include "service/core/arena.h"
#include "service/core/status.h"

/* Decodes `size` bytes of text into the arena, NUL after it. `+` stays a plus: that it means a
 * space is a rule of HTML forms, not of URIs. INVALID_REQUEST: a broken escape, an escaped NUL, not
 * UTF-8; the fault says which. */
enum status percent_decode(struct arena *arena, const char *text, size_t size, const char **out,
                           struct fault *fault);

#endif
