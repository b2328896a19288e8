/* A layout: the ordered list of named shapes of a model. The model is one flat vector of
 * layout->count elements; tensor i is elements offset .. offset+count-1 of it, in C order.
 * Immutable once sealed; reference-counted; thread safe. */
#ifndef DESCENT_TENSOR_LAYOUT_H
#define DESCENT_TENSOR_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/hash.h"
#include "service/core/span.h"
#include "service/core/status.h"

enum {
    LAYOUT_RANK_MAX = 8,
    LAYOUT_NAME_BYTES_MAX = 255, /* bytes of UTF-8, at least 1 */
    LAYOUT_TENSORS_MAX = 16384,
};
#define LAYOUT_COUNT_MAX ((size_t)1 << 36) /* elements: 512 GiB as f64, far below any overflow */

struct tensor {
    const char *name; /* UTF-8, NUL-terminated; no NUL or control characters inside; "__metadata__"
                         is refused */
    unsigned rank;    /* 0: a scalar */
    size_t shape[LAYOUT_RANK_MAX]; /* zero sizes are allowed */
    size_t offset;                 /* elements */
    size_t count;                  /* elements, product of shape, 1 for a scalar */
};

struct layout {
    size_t tensor_count; /* > 0 once sealed */
    struct tensor *tensors;
    size_t count;         /* elements of the whole model, > 0 once sealed */
    struct digest digest; /* of names and shapes in order */
    size_t *by_name;      /* internal: sorted indices */
    size_t capacity;      /* internal */
    unsigned references;  /* internal, atomic */
};

struct layout *layout_new(void); /* NULL when memory is out */

/* Adds a tensor at the end. INVALID_FIELD (where = "/name" escaped) for a bad name, a duplicate
 * shows at layout_seal; TOO_LARGE over a limit; INTERNAL when memory is out. shape products are
 * checked against overflow. */
enum status layout_add(struct layout *layout, const char *name, size_t name_size, unsigned rank,
                       const size_t *shape, struct fault *fault);

/* Sorts, finds duplicates (INVALID_FIELD), computes the digest. After it the layout never changes.
 */
enum status layout_seal(struct layout *layout, struct fault *fault);

struct layout *layout_retain(struct layout *layout);
void layout_release(struct layout *layout); /* NULL is allowed */

/* The tensor of that name or NULL. O(log tensors). */
const struct tensor *layout_find(const struct layout *layout, const char *name, size_t name_size);

/* "[2, 3]" into out; cut to fit. Returns out. */
char *shape_format(char *out, size_t size, unsigned rank, const size_t *shape);

#endif
