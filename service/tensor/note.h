/* What a step says of one tensor. */
#ifndef DESCENT_TENSOR_NOTE_H
#define DESCENT_TENSOR_NOTE_H

#include <stdint.h>

/* NaN: not known. Of an empty tensor all but the cosine is 0. */
struct tensor_note {
    float grad_norm;                /* L2, of rescale * g, before any clipping */
    float update_norm, weight_norm; /* of w(t) - w(t-1) and of w(t) */
    float cosine;                   /* of the angle to the gradient before, on a sample */
    float zeros;                    /* share of the gradient's numbers that are 0 */
    uint32_t nonfinite;             /* how many were not finite */
};

#endif
