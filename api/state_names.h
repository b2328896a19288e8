/* The names that the vectors of a state have in a file, and the checksum of what is no vector;
 * state_file.h says what they look like. */
#ifndef DESCENT_API_STATE_NAMES_H
#define DESCENT_API_STATE_NAMES_H

#include <stdbool.h>

#include "service/core/arena.h"
#include "service/core/hash.h"
#include "service/session/engine.h"

enum {
    STATE_FORMAT = 1,
    STATE_PREFIX_BYTES = 320,
    STATE_NAME_BYTES =
        STATE_PREFIX_BYTES + sizeof((struct image_vector *)0)->prefix + LAYOUT_NAME_BYTES_MAX + 1,
};

/* How many tensors the file has: those that are not empty. */
size_t state_entries(const struct image *image);

/* The name of a tensor of a vector; the weights themselves have their own. */
char *state_name(char out[STATE_NAME_BYTES], const char *prefix, const struct image_vector *vector,
                 const struct tensor *tensor);

/* XXH3-128 of the bytes of the record and then the head; false when memory is out. */
bool state_checksum(struct span record, struct span head, struct digest *out);

/* The shortest of "", "state/", "state/state/" ... with which no name is a weight's own. In the
 * arena; NULL when memory is out. */
const char *state_prefix(struct arena *arena, const struct image *image);

#endif
