/* A fixed sample of a session's last gradient, for the angle between one gradient and the next:
 * of a tensor of up to SAMPLE_TENSOR numbers all, else as many in runs of SAMPLE_RUN, the first at
 * its start, the last at its end, the others evenly between them. At most as large as the model in
 * f32. Not thread safe. */
#ifndef DESCENT_SESSION_SAMPLE_H
#define DESCENT_SESSION_SAMPLE_H

#include <stddef.h>

#include "service/optim/whole.h"
#include "service/tensor/layout.h"
#include "service/tensor/note.h"

enum { SAMPLE_TENSOR = 1024, SAMPLE_RUN = 64 };

struct sample;

/* Nothing is kept yet. NULL when memory is out. */
struct sample *sample_new(const struct layout *layout);
void sample_free(struct sample *sample); /* NULL is allowed */

/* Bytes it takes, for the budget of memory. */
size_t sample_bytes(const struct layout *layout);

/* notes[i].cosine of [layout->tensor_count]: of the angle between the sample that is kept and this
 * gradient's, from -1 to 1; NaN when none is kept, where either is all zeros, and where a number is
 * too large for a float. Then keeps this gradient's. layout: the one of sample_new. notes NULL:
 * only keeps it. The bits depend on the two gradients alone. */
void sample_turn(struct sample *sample, const struct layout *layout,
                 const struct wire_gradient *gradient, struct tensor_note *notes);

/* Nothing is kept any more: the next cosine is NaN. */
void sample_forget(struct sample *sample);

/* Where number `index` < min(count, SAMPLE_TENSOR) of the sample lies in a tensor of `count`. */
size_t sample_position(size_t count, size_t index);

#endif
