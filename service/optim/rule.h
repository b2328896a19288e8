/* What a rule's file includes: `real`, the piece, and the declarations every rule shares. */
#ifndef DESCENT_OPTIM_RULE_H
#define DESCENT_OPTIM_RULE_H

#include "service/core/simd.h"
#include "service/kernel/real.h"
#include "service/optim/optimizer.h"

extern const char *const weight_decay_modes[];

#define NUMBER(name_, initial_, min_, max_, meaning_)                                              \
    {                                                                                              \
        .name = name_, .kind = HYPER_NUMBER, .initial = initial_, .min = min_, .max = max_,        \
        .unit = "", .meaning = meaning_                                                            \
    }
/* A decay rate or momentum: at least 0, less than 1. */
#define FRACTION(name_, initial_, meaning_)                                                        \
    {                                                                                              \
        .name = name_, .kind = HYPER_NUMBER, .initial = initial_, .min = 0, .max = 1,              \
        .max_open = true, .unit = "", .meaning = meaning_                                          \
    }
#define FLAG(name_, initial_, meaning_)                                                            \
    {                                                                                              \
        .name = name_, .kind = HYPER_FLAG, .initial = initial_, .min = 0, .max = 1, .unit = "",    \
        .meaning = meaning_                                                                        \
    }
#define CHOICE(name_, initial_, choices_, meaning_)                                                \
    {                                                                                              \
        .name = name_, .kind = HYPER_CHOICE, .initial = initial_, .choices = choices_, .unit = "", \
        .meaning = meaning_                                                                        \
    }

#define LR(initial_)                                                                               \
    [HYPER_LR] = {.name = "lr",                                                                    \
                  .kind = HYPER_NUMBER,                                                            \
                  .initial = initial_,                                                             \
                  .min = 0,                                                                        \
                  .max = 1e30,                                                                     \
                  .unit = "per step",                                                              \
                  .meaning = "learning rate"}
#define WEIGHT_DECAY(initial_, mode_)                                                              \
    [HYPER_WEIGHT_DECAY] = NUMBER("weight_decay", initial_, 0, 1e30, "decay of the weights"),      \
    [HYPER_WEIGHT_DECAY_MODE] =                                                                    \
        CHOICE("weight_decay_mode", mode_, weight_decay_modes,                                     \
               "l2: added to the gradient after clipping; decoupled: weights shrink by lr * "      \
               "weight_decay first; l2_clipped: added before clip_value (MXNet 1.x)")

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

#endif
