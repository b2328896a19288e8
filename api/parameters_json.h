/* The "parameters" member of a new session: nested arrays, or objects with a shape and data,
 * data_b64 or init. */
#ifndef DESCENT_API_PARAMETERS_JSON_H
#define DESCENT_API_PARAMETERS_JSON_H

#include "api/json_document.h"
#include "service/core/buffer.h"
#include "service/tensor/layout.h"

/* Builds the layout and fills the weights (layout->count elements of dtype f32 or f64; `init` draws
 * from `seed`). At most `parameters_max` elements, checked before memory is taken. where of faults
 * = "/parameters/<name>...". */
enum status parameters_read(struct arena *arena, const struct json_document *document,
                            const json_t *object, enum dtype dtype, uint64_t seed,
                            uint64_t parameters_max, struct layout **layout,
                            struct buffer **weights, struct fault *fault);

#endif
