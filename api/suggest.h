/* What may have been meant: names of a catalogue, the likeliest first. */
#ifndef DESCENT_API_SUGGEST_H
#define DESCENT_API_SUGGEST_H

#include <stddef.h>

/* Lists at most `most` of the names that name_at gives (NULL past the end), those most like
 * `wanted` first, in out: "adam, adamw, radam"; "..." stands for those left out. Returns out. */
char *suggest(const char *wanted, const char *(*name_at)(size_t index), size_t most, char *out,
              size_t size);

#endif
