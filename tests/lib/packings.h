/* Random compressed gradients, packed by loops of their own as service/tensor/packed.h says, beside
 * the plain numbers that they stand for. */
#ifndef DESCENT_TESTS_PACKINGS_H
#define DESCENT_TESTS_PACKINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "service/tensor/gradient.h"

/* Those of whole.h, which declares one of them in any file. */
const float *gradient_block_f32(const struct wire_gradient *gradient, size_t start, size_t count,
                                float *scratch);
const double *gradient_block_f64(const struct wire_gradient *gradient, size_t start, size_t count,
                                 double *scratch);

struct packing {
    struct wire_gradient gradient; /* its data are `size` bytes of their own, so that a sanitizer
                                      sees every byte beyond */
    double *values; /* [count]: exact in double, so that one rounding makes them f32 */
    bool *sent;     /* [count]: rows: of a row that is there; topk: it is there */
};

/* density: how many of the rows or elements are there, 0 to 1. */
struct packing packing_random(const struct layout *layout, enum gradient_form form, enum dtype wire,
                              double density, uint64_t seed);
void packing_free(struct packing *packing);

/* The same gradient, not compressed, in f64: the data are the values. */
struct wire_gradient packing_dense(const struct packing *packing);

#endif
