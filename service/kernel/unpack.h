/* Reading compressed gradients (service/tensor/packed.h) block by block. */
#ifndef DESCENT_KERNEL_UNPACK_H
#define DESCENT_KERNEL_UNPACK_H

#include <stddef.h>

#include "service/kernel/real.h"
#include "service/tensor/gradient.h"

/* out = elements start .. start+count-1 of the model: any run of them, of any tensors. The form is
 * not FORM_DENSE. A block of topk or rows with nothing in it costs the zeros and a search. */
void REAL(unpack_block)(const struct wire_gradient *gradient, size_t start, size_t count,
                        real *out);

#endif
