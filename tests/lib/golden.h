/* Reads the golden traces that tests/golden/generate.py writes; it describes the format. A file
 * that cannot be read is a failed test. */
#ifndef DESCENT_TESTS_GOLDEN_H
#define DESCENT_TESTS_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "service/optim/optimizer.h"
#include "service/tensor/layout.h"

enum { GOLDEN_COUNT_MAX = 96, GOLDEN_STEPS_MAX = 32, GOLDEN_SETS_MAX = 20 };

struct golden_state {
    bool given;
    double lr, norm, clip_scale, update_norm, param_norm; /* of a step; not of a free state */
    double weights[GOLDEN_COUNT_MAX];
    double slot[SLOTS_MAX][GOLDEN_COUNT_MAX];
    double scalar[SCALARS_MAX];
};

struct golden_trace {
    char rule[32], label[64];
    size_t set_count;
    struct {
        char name[32], value[40];
    } set[GOLDEN_SETS_MAX];
    size_t slot_count;
    struct {
        char name[16];
        bool square;  /* holds squares of gradients */
        size_t count; /* numbers over all tensors */
    } slot[SLOTS_MAX];
    size_t scalar_count;
    char scalar[SCALARS_MAX][16];
    bool only_f64;                       /* its numbers hold in f64 alone */
    size_t base[GOLDEN_STEPS_MAX + 1];   /* [t]: the step whose weights gradient t was taken at */
    bool has_base[GOLDEN_STEPS_MAX + 1]; /* false: those of step t - 1 */
    struct golden_state step[GOLDEN_STEPS_MAX + 1]; /* [t]: one exact step from [t - 1] as f32 */
    struct golden_state free[GOLDEN_STEPS_MAX + 1]; /* [t]: t exact steps from the start */
};

struct golden {
    struct layout *layout;
    size_t count; /* elements of all tensors */
    size_t steps;
    double weights[GOLDEN_COUNT_MAX];
    double gradient[GOLDEN_STEPS_MAX + 1][GOLDEN_COUNT_MAX]; /* [t] */
    FILE *file;
    char *line; /* read and not yet used */
    size_t line_capacity;
};

bool golden_open(struct golden *golden, const char *rule); /* false: there is no such file */
bool golden_next(struct golden *golden, struct golden_trace *out); /* false: no more */
void golden_close(struct golden *golden);

#endif
