#include "service/session/sample.h"
#include <math.h>
#include <stdlib.h>
struct sample *sample_new(const struct layout *layout)
{
    (void)layout;
    return calloc(1, 8);
}
void sample_free(struct sample *sample)
{
    free(sample);
}
void sample_turn(struct sample *sample, const struct layout *layout,
                 const struct wire_gradient *gradient, struct tensor_note *notes)
{
    (void)sample;
    (void)gradient;
    for (size_t i = 0; i < layout->tensor_count; i++)
        notes[i].cosine = (float)NAN;
}
