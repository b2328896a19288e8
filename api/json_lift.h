/* The lifting pass of json_document.h: a JSON text becomes a small envelope for jansson and the
 * pieces cut out of it. */
#ifndef DESCENT_API_JSON_LIFT_H
#define DESCENT_API_JSON_LIFT_H

#include <stddef.h>

#include "service/core/arena.h"
#include "service/core/span.h"
#include "service/core/status.h"

struct json_lift {
    struct span text;     /* the original; borrowed */
    struct span envelope; /* in the arena */
    struct span
        *pieces; /* of the text, in order, in the arena; their indices stand in the envelope */
    size_t piece_count;
};

/* One pass over the text; a byte is looked at three times at most, whatever the text. Checks the
 * grammar of what is lifted and the limits; jansson checks the rest. INVALID_JSON, TOO_LARGE,
 * INTERNAL (memory). */
enum status json_lift(struct arena *arena, struct span text, struct json_lift *out,
                      struct fault *fault);

/* The place in the text of a place in the envelope; inside a piece: its begin. */
size_t json_lift_offset(const struct json_lift *lift, size_t envelope_offset);

/* INVALID_JSON with "line 3, column 14 (byte 57): <words>". */
enum status json_lift_fault(struct span text, size_t offset, struct fault *fault,
                            const char *words);

#endif
