/* What an update rule is: one immutable descriptor in one file, one line in optimizers.def.
 * Hyperparameters and slots are declared, so that validation, defaults, storage, GET /v1/optimizers
 * and the contract tests need no code per rule. */
#ifndef DESCENT_OPTIM_OPTIMIZER_H
#define DESCENT_OPTIM_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/tensor/dtype.h"

enum { HYPERS_MAX = 16, SLOTS_MAX = 4 };

enum hyper_kind { HYPER_NUMBER, HYPER_FLAG, HYPER_CHOICE };

/* Every value is kept as a double: a flag as 0 or 1, a choice as its index. */
struct hyper {
    const char *name;
    enum hyper_kind kind;
    double initial;  /* the default */
    double min, max; /* HYPER_NUMBER: inclusive unless open */
    bool max_open;
    const char *const *choices; /* HYPER_CHOICE: NULL-terminated */
    const char *unit;           /* "" for a pure number */
    const char *meaning;
};

/* Every rule declares these three first, by the macros LR and WEIGHT_DECAY of rule.h: the pipeline
 * serves them. */
enum { HYPER_LR, HYPER_WEIGHT_DECAY, HYPER_WEIGHT_DECAY_MODE, HYPER_OWN };

enum weight_decay_mode { DECAY_L2, DECAY_DECOUPLED, DECAY_L2_CLIPPED };

struct slot {
    const char *name;
    const char *meaning;
    bool (*needed)(const double *hyper); /* NULL: always */
};

/* One call of a rule: a piece of the flat vector. `grad`, `param`, `next_param` and the slots are
 * float or double, as the descriptor's dtype says. */
struct piece {
    size_t count;        /* parameters in this piece, > 0 */
    uint64_t step;       /* t in the papers: updates applied including this one; the first is 1 */
    const double *hyper; /* declaration order, validated; lr as it is to be used */
    const void *grad;  /* q: the estimate after rescaling, clipping and L2 decay, [count], finite */
    const void *param; /* w(t-1), [count]: readers may still hold it */
    void *next_param;  /* w(t), [count], overlaps nothing */
    void *const *slot; /* state in declaration order, [count] each, updated in place; NULL where not
                          needed */
};

struct optimizer {
    const char *name;
    const char *summary;
    const char *formula;
    const char *source; /* paper, section, equation */
    enum dtype dtype;   /* of this descriptor: f32 or f64 */
    const struct hyper *hypers;
    size_t hyper_count;
    const struct slot *slots;
    size_t slot_count;
    void (*update)(const struct piece
                       *piece); /* total: cannot fail; any cut into pieces gives the same bits */
};

/* The rule of that name for sessions of `dtype` (f32, f64), or NULL. */
const struct optimizer *optimizer_find(const char *name, enum dtype dtype);

/* Every rule in table order; NULL past the end. */
const struct optimizer *optimizer_at(size_t index, enum dtype dtype);

/* The index of a hyperparameter, or hyper_count when there is none of that name. */
size_t optimizer_hyper(const struct optimizer *optimizer, const char *name);

/* Whether the value is allowed; false leaves a sentence that says the range in why. */
bool hyper_allows(const struct hyper *hyper, double value, char *why, size_t why_size);

/* Whether a slot exists under these hyperparameters. */
bool slot_needed(const struct slot *slot, const double *hyper);

#endif
