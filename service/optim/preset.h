/* Presets: an optimizer of another framework by its name there, as a rule and explicit fields. One
 * line each in presets.def:
 *
 *     PRESET("torch.optim.Adam", "adam", "lr=0.001 beta1=0.9 ...", "eps_mode=outside ...")
 *
 * name, rule, the fields that the framework's optimizer has, with its defaults, and the fields that
 * make it that framework's form, which cannot be changed. Field names are the rule's own. */
#ifndef DESCENT_OPTIM_PRESET_H
#define DESCENT_OPTIM_PRESET_H

#include "service/core/status.h"
#include "service/optim/optimizer.h"

struct preset {
    const char *name;
    const char *rule;
    const char *fields; /* "name=value ..." */
    const char *fixed;  /* the same */
};

const struct preset *preset_find(const char *name); /* NULL: none */
const struct preset *preset_at(size_t index);       /* NULL past the end */

/* Sets every field of the preset in hyper[], which holds the defaults of `rule`, the preset's. */
void preset_apply(const struct preset *preset, const struct optimizer *rule, double *hyper);

/* Whether the framework's optimizer has that field. */
bool preset_has(const struct preset *preset, const char *field);

/* Calls each(context, name, value) for every field of fields or fixed, in order. */
void preset_each(const char *fields,
                 void (*each)(void *context, const char *name, const char *value), void *context);

#endif
