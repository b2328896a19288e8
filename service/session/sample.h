#ifndef DESCENT_SESSION_SAMPLE_H
#define DESCENT_SESSION_SAMPLE_H

#include "service/optim/whole.h"
#include "service/session/engine.h"

struct sample;
struct sample *sample_new(const struct layout *layout);
void sample_free(struct sample *sample);
void sample_turn(struct sample *sample, const struct layout *layout,
                 const struct wire_gradient *gradient, struct tensor_note *notes);

#endif
