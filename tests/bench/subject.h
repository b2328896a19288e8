/* A rule with its vectors, ready to step: what kernel.c, rules.c and muon.c measure. */
#ifndef DESCENT_TESTS_BENCH_SUBJECT_H
#define DESCENT_TESTS_BENCH_SUBJECT_H

#include <stddef.h>

#include "service/core/buffer.h"
#include "service/session/advance.h"

struct subject {
    const struct optimizer *rule; /* f32 */
    struct layout *layout;        /* of like tensors */
    struct plan *plan;
    size_t count;
    double hyper[HYPERS_MAX], scalar[SCALARS_MAX];
    struct advance advance;
    struct buffer *gradient, *weights, *next, *base, *slot[SLOTS_MAX], *workspace, *proposal;
};

/* The rule with its defaults on a matrix of rows x columns, filled with numbers like a model's.
 * Ends the program when memory is out. */
void subject_open(struct subject *subject, const char *rule, size_t rows, size_t columns);
/* The same on so many of them. */
void subject_open_many(struct subject *subject, const char *rule, size_t tensors, size_t rows,
                       size_t columns);
void subject_close(struct subject *subject);

/* A step as the server takes it, norms and all, on the threads of the crew. */
void subject_step(struct subject *subject);

/* The same without cutting, conditioning and norms: rules of grain element only. */
void subject_update(struct subject *subject);

/* Bytes of state and all that a step reads and writes a parameter, each vector once. */
double subject_bytes(const struct subject *subject);

/* a[i] = b[i] + 3 c[i] over the subject's own vectors: 12 bytes an element. */
void subject_triad(struct subject *subject);

/* Nanoseconds a parameter of one call, from `repeats` of them. */
double subject_time(void (*run)(struct subject *subject), struct subject *subject, size_t repeats);

#endif
