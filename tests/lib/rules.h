/* Walks every form of a rule without naming any: a form sets each choice and flag to each of its
 * values, and each number whose default is 0 (a switch, mostly) to 0 and to 1/4. */
#ifndef DESCENT_TESTS_RULES_H
#define DESCENT_TESTS_RULES_H

#include <stddef.h>

#include "service/optim/optimizer.h"

size_t rule_forms(const struct optimizer *rule);

/* The hyperparameters of form number `form` into hyper[HYPERS_MAX]. */
void rule_form(const struct optimizer *rule, size_t form, double *hyper);

#endif
