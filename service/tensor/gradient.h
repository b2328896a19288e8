/* A gradient as it came: on the wire, in the journal, in a round. It stays in that form; what
 * computes with it asks for blocks of it as float or double (gradient_block in whole.h), so that a
 * compressed gradient is never spread out in memory. */
#ifndef DESCENT_TENSOR_GRADIENT_H
#define DESCENT_TENSOR_GRADIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/tensor/dtype.h"
#include "service/tensor/layout.h"

enum gradient_form {
    FORM_DENSE, /* count elements of `wire` dtype in layout order */
    FORM_INT8,  /* compressed: packed.h says how the bytes are laid out */
    FORM_SIGN,
    FORM_TOPK,
    FORM_TWO_BIT,
    FORM_ROWS,
    FORM_NONE, /* no gradient at all: of an event that only closes a round, or marks it */
    FORM_COUNT
};

struct wire_gradient {
    void *data;
    enum dtype wire; /* of the elements; compressed: of values and scales */
    size_t count;    /* elements of the model */
    enum gradient_form form;
    size_t size;                 /* bytes of data; where the form is FORM_DENSE it follows */
    const struct layout *layout; /* may be NULL where the form is FORM_DENSE */
    /* FORM_DENSE, of a mean: its members, all FORM_ROWS; a row that none of them has is not there.
     * NULL: every row is. */
    const struct wire_gradient *rows;
    size_t rows_count;
};

/* Whether some rows may not be there, which is not the same as zeros. */
static inline bool gradient_has_rows(const struct wire_gradient *gradient)
{
    return gradient->form == FORM_ROWS || gradient->rows != NULL;
}

/* One that is not compressed. */
static inline struct wire_gradient dense_gradient(void *data, enum dtype wire, size_t count)
{
    return (struct wire_gradient){
        .data = data, .wire = wire, .count = count, .size = count * dtype_size(wire)};
}

#endif
