/* What a rule's file includes: `real`, the piece, and the declarations every rule shares. */
#ifndef DESCENT_OPTIM_RULE_H
#define DESCENT_OPTIM_RULE_H

#include "service/core/simd.h"
#include "service/kernel/real.h"
#include "service/optim/declare.h"
#include "service/optim/optimizer.h"
#include "service/optim/whole.h"

extern const char *const weight_decay_modes[];

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
/* Of rules that are `decays`. */
#define WEIGHT_DECAY_OWN(initial_)                                                                 \
    [HYPER_WEIGHT_DECAY] = NUMBER("weight_decay", initial_, 0, 1e30, "decay of the weights"),      \
    [HYPER_WEIGHT_DECAY_MODE] =                                                                    \
        CHOICE("weight_decay_mode", DECAY_L2, weight_decay_modes,                                  \
               "l2: where the formula has it; decoupled: weights shrink by lr * weight_decay "     \
               "first; l2_clipped: added to the gradient before clip_value (MXNet 1.x)")

#endif
