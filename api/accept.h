/* Header fields that are lists of words with qualities (RFC 9110, 12.4.2): Accept, Accept-Encoding.
 */
#ifndef DESCENT_API_ACCEPT_H
#define DESCENT_API_ACCEPT_H

#include <stdbool.h>

#include "service/core/span.h"

/* The word at *at, up to a space, ';' or ','; *at moves past it and the spaces around it. May be
 * empty. */
struct span accept_word(const char **at);

/* Takes the next element off *list: its word, which may be empty, and its quality in thousandths:
 * 1000 without one, -1 where q is no quality. False: that was all. */
bool accept_next(const char **list, struct span *word, int *quality);

/* Whether the word is this text, without case. `text` may be NULL: it is not. */
bool accept_is(struct span word, const char *text);

/* The value of a parameter, without its quotes, of a field that is one word, like Content-Type;
 * size 0: it has none, or an empty one. */
struct span accept_parameter(const char *field, const char *name);

#endif
