/* What an update rule is: one immutable descriptor in one file, one line in optimizers.def.
 * Hyperparameters, slots and scalars are declared, so that validation, defaults, storage,
 * GET /v1/optimizers and the contract tests need no code per rule. */
#ifndef DESCENT_OPTIM_OPTIMIZER_H
#define DESCENT_OPTIM_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/tensor/dtype.h"
#include "service/tensor/layout.h"

enum { HYPERS_MAX = 16, SLOTS_MAX = 4, SCALARS_MAX = 2, BASES_MAX = 64 };

enum hyper_kind {
    HYPER_NUMBER,
    HYPER_WHOLE, /* a number without a fraction */
    HYPER_FLAG,
    HYPER_CHOICE,
    HYPER_STEPS, /* an ascending list of steps; only in schedules (schedule.h) */
};

/* Every value is kept as a double: a flag as 0 or 1, a choice as its index, null as NaN. */
struct hyper {
    const char *name;
    enum hyper_kind kind;
    double initial;  /* the default; NaN: null, or, where that is not allowed, it must be given */
    double min, max; /* numbers: inclusive unless open */
    bool min_open, max_open;
    bool nullable;
    const char *const *choices; /* HYPER_CHOICE: NULL-terminated */
    const char *unit;           /* "" for a pure number */
    const char *meaning;
};

/* Every rule declares these three first, by the macros LR and WEIGHT_DECAY of rule.h: the pipeline
 * serves them. */
enum { HYPER_LR, HYPER_WEIGHT_DECAY, HYPER_WEIGHT_DECAY_MODE, HYPER_OWN };

enum weight_decay_mode { DECAY_L2, DECAY_DECOUPLED, DECAY_L2_CLIPPED };

/* State of a tensor: a vector, zeros at first unless it says otherwise. */
struct slot {
    const char *name;
    const char *meaning;
    bool (*needed)(const double *hyper);           /* NULL: always */
    size_t (*extent)(const struct tensor *tensor); /* how many numbers; NULL: one a parameter */
    const char *per;                               /* of an extent, in words: "row" */
    size_t initial;         /* the hyperparameter that every number starts at; 0: they start at 0 */
    bool starts_as_weights; /* a copy of the weights when it comes into being, and whenever they are
                               replaced */
};

/* State of the whole session: one double, changed once a step by `begin`. */
struct scalar {
    const char *name;
    const char *meaning;
    double initial;
};

/* How a gradient becomes q; see condition in whole.h. */
struct conditioning {
    double rescale, clip_value, clip_scale; /* 1, infinity, 1: nothing to do */
    double decay;                           /* of the l2 modes, 0: none */
    bool clips_last;                        /* clip_value after the decay */
    double shrink;                          /* of decoupled decay: lr * weight_decay, 0: none */
};

/* One call of a rule: a piece of the flat vector. `grad`, `param`, `next_param`, `base` and the
 * slots are float or double, as the descriptor's dtype says. */
struct piece {
    size_t count;         /* parameters in this piece, > 0, at most WHOLE_BLOCK */
    size_t start;         /* the first of them in the model's flat vector */
    uint64_t step;        /* t in the papers: updates applied including this one; the first is 1 */
    const double *hyper;  /* declaration order, validated; lr and weight_decay as they are to be
                            used: scheduled, times the group's factors; weight_decay 0 where the
                            pipeline has done it */
    const double *scalar; /* after `begin` */
    uint64_t seed;        /* of the session */
    const struct conditioning *conditioning; /* for rules that are `raw` */
    const void *grad;  /* q: the estimate after rescaling, clipping and L2 decay, [count], finite */
    const void *param; /* w(t-1), after decoupled decay, [count]: readers may still hold it */
    const void *last;  /* w(t-1), before it */
    void *next_param;  /* w(t), [count], overlaps nothing */
    const void *base;  /* w the gradient was computed at, [count]; where `bases` asks for it */
    void *const *slot; /* state in declaration order, updated in place; NULL where not needed.
                          Slots with an `extent` are the tensor's whole, the others [count] */
};

struct whole; /* one tensor's step: whole.h */

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
    const struct scalar *scalars;
    size_t scalar_count;
    /* NULL, or a sentence on values that do not go together, and the field at fault. NULL: all
     * do. */
    const char *(*check)(const double *hyper, const char **field);
    bool decays; /* mode l2 is in the rule's own formula: it gets c, and weight_decay to use */
    bool raw;    /* gets clip_scale * g and conditions it itself (piece->conditioning) */
    /* A gradient of rows moves those rows alone, weights and state; else it is one with zeros in
     * the others, for which there is decay, momentum and noise. */
    bool lazy_rows;
    /* Once a step before anything else: t and the scalars. NULL: nothing to do. */
    void (*begin)(const double *hyper, uint64_t step, double *scalar);
    /* How many revisions before the current one a gradient may name as its base (at most
     * BASES_MAX): the session keeps their weights. NULL: none. */
    size_t (*bases)(const double *hyper);
    /* Bytes of scratch memory for a tensor (whole->workspace). NULL: none. */
    size_t (*workspace)(const struct tensor *tensor);
    /* What depends on the machine (OpenBLAS): computed before the step is journaled, and journaled
     * with it, so that replay reads it. proposal_extent numbers a tensor. NULL: none. */
    size_t (*proposal_extent)(const struct tensor *tensor);
    void (*propose)(struct whole *whole, void *proposal);
    /* One of the two, total: it cannot fail. */
    void (*update)(const struct piece *piece);  /* grain element: any cut gives the same bits */
    void (*update_tensor)(struct whole *whole); /* grain tensor: norms, rows, matrices */
};

/* The rule of that name for sessions of `dtype` (f32, f64), or NULL. */
const struct optimizer *optimizer_find(const char *name, enum dtype dtype);

/* Every rule in table order; NULL past the end. */
const struct optimizer *optimizer_at(size_t index, enum dtype dtype);

/* "element" or "tensor": how finely the work of the rule may be cut. */
const char *optimizer_grain(const struct optimizer *optimizer);

/* The index of a hyperparameter among `count`, or count when there is none of that name. */
size_t hyper_find(const struct hyper *hypers, size_t count, const char *name);
size_t optimizer_hyper(const struct optimizer *optimizer, const char *name);

/* Whether the value is allowed; false leaves a sentence that says the range in why. */
bool hyper_allows(const struct hyper *hyper, double value, char *why, size_t why_size);

/* Reads "0.9", "null", "true" or a choice; false when it is none that the hyperparameter allows. */
bool hyper_parse(const struct hyper *hyper, const char *text, double *out);

/* Whether a slot exists under these hyperparameters. */
bool slot_needed(const struct slot *slot, const double *hyper);

/* How many numbers a slot has for a tensor. */
size_t slot_extent(const struct slot *slot, const struct tensor *tensor);

#endif
