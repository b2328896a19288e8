/* Short forms of declarations: hyperparameters of rules and schedules. */
#ifndef DESCENT_OPTIM_DECLARE_H
#define DESCENT_OPTIM_DECLARE_H

#include <math.h>

#include "service/optim/optimizer.h"

#define NUMBER(name_, initial_, min_, max_, meaning_)                                              \
    {                                                                                              \
        .name = name_, .kind = HYPER_NUMBER, .initial = initial_, .min = min_, .max = max_,        \
        .unit = "", .meaning = meaning_                                                            \
    }
/* More than 0. */
#define POSITIVE(name_, initial_, max_, meaning_)                                                  \
    {                                                                                              \
        .name = name_, .kind = HYPER_NUMBER, .initial = initial_, .min = 0, .max = max_,           \
        .min_open = true, .unit = "", .meaning = meaning_                                          \
    }
/* A number or null, null by default. */
#define OPTIONAL(name_, min_, max_, meaning_)                                                      \
    {                                                                                              \
        .name = name_, .kind = HYPER_NUMBER, .initial = (double)NAN, .min = min_, .max = max_,     \
        .nullable = true, .unit = "", .meaning = meaning_                                          \
    }
/* A decay rate or momentum: at least 0, less than 1. */
#define FRACTION(name_, initial_, meaning_)                                                        \
    {                                                                                              \
        .name = name_, .kind = HYPER_NUMBER, .initial = initial_, .min = 0, .max = 1,              \
        .max_open = true, .unit = "", .meaning = meaning_                                          \
    }
/* A whole number; unit_ is "steps", "batches" ... */
#define WHOLE(name_, initial_, min_, max_, unit_, meaning_)                                        \
    {                                                                                              \
        .name = name_, .kind = HYPER_WHOLE, .initial = initial_, .min = min_, .max = max_,         \
        .unit = unit_, .meaning = meaning_                                                         \
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

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

#endif
