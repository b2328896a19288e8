/* The vectors of a session without an engine: proposals and steps of any rule over any layout,
 * through service/session/advance.h, as a test fills them. What fails is a failed test. */
#ifndef DESCENT_TESTS_WORK_H
#define DESCENT_TESTS_WORK_H

#include "service/session/advance.h"

enum {
    WORK_GRADIENT,
    WORK_PARAM,
    WORK_NEXT,
    WORK_PROPOSAL,
    WORK_SLOT,
    WORK_VECTORS = WORK_SLOT + SLOTS_MAX,
    WORK_CANARY = 0xA5, /* in all memory that is not filled, and behind it */
};

struct work {
    struct layout *layout;
    struct spec spec;
    struct plan *plan;
    size_t element, size[WORK_VECTORS]; /* bytes */
    unsigned char *vector[WORK_VECTORS];
    void *workspace;
};

/* `size` bytes and at least one more, 64-byte aligned, full of WORK_CANARY. */
void *work_take(size_t size);

/* The rule's defaults. Slots are zeros. */
void work_init(struct work *work, const char *rule, enum dtype dtype, const char *layout);
void work_close(struct work *work);

double *work_hyper(struct work *work, const char *name);

/* Standard normal numbers times scale, from the run's seed and this one, the same in every
 * dtype. */
void work_fill(struct work *work, int vector, uint64_t seed, double scale);

/* `count` numbers of a vector as doubles; the caller frees them. */
double *work_numbers(const struct work *work, int vector, size_t start, size_t count);

/* The largest distance of a vector's numbers from what they should be; infinite for a NaN. */
double work_distance(const struct work *work, int vector, const long double *expected);

/* Without conditioning. A step takes the proposal that is there, and moves the weights on. */
void work_propose(struct work *work, uint64_t update);
void work_step(struct work *work, uint64_t update);

double work_rounding(enum dtype dtype); /* DBL_EPSILON, FLT_EPSILON */

#endif
