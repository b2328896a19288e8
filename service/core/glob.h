/* Patterns for names. */
#ifndef DESCENT_CORE_GLOB_H
#define DESCENT_CORE_GLOB_H

#include <stdbool.h>

/* Whether the whole text matches: * any bytes or none, ? any one character of UTF-8, all else
 * itself. Time: length of pattern times length of text at most. */
bool glob_match(const char *pattern, const char *text);

#endif
