/* Walks the forms of a rule without naming any, and steps sessions of it without an engine.
 *
 * A form sets each choice and flag to each of its values; each number whose default is 0 (a
 * switch, mostly) to 0 and to 1/4; weight_decay to its default and to 0 or 1/4; each number that
 * takes state away when it is 0 to 0 too; each whole number that is at its least by default to one
 * more; what may be null to null and to a number. Of rules with more than RULE_FORMS_MAX such
 * forms, that many are walked, among which every value of every hyperparameter is. */
#ifndef DESCENT_TESTS_RULES_H
#define DESCENT_TESTS_RULES_H

#include <stdbool.h>
#include <stddef.h>

#include "service/session/advance.h"
#include "service/session/plan.h"
#include "service/session/spec.h"

enum { RULE_FORMS_MAX = 64 };

size_t rule_forms(const struct optimizer *rule);

/* The hyperparameters of form number `form` into hyper[HYPERS_MAX]. */
void rule_form(const struct optimizer *rule, size_t form, double *hyper);

/* A session of that form, else with defaults. */
void rule_spec(struct spec *spec, const struct optimizer *rule, size_t form);

/* What form walking gives a hyperparameter: how many values, and number `index` of them. */
size_t rule_values(const struct optimizer *rule, size_t hyper);
double rule_value(const struct optimizer *rule, size_t hyper, size_t index);

/* The vectors of a trial. */
enum {
    TRIAL_GRADIENT, /* room for any wire dtype */
    TRIAL_PARAM,
    TRIAL_NEXT,
    TRIAL_BASE,
    TRIAL_AVERAGE,
    TRIAL_NEXT_AVERAGE,
    TRIAL_PROPOSAL,
    TRIAL_WORKSPACE,
    TRIAL_SLOT,
    TRIAL_VECTORS = TRIAL_SLOT + SLOTS_MAX
};

/* A session of a rule, as the engine holds it. Every vector lies between canaries. */
struct trial {
    const struct optimizer *rule;
    struct layout *layout;
    struct plan *plan;
    size_t count, element; /* parameters, bytes of one */
    double hyper[HYPERS_MAX], scalar[SCALARS_MAX];
    struct advance advance; /* of the next step: set what differs from doing nothing */
    bool proposes;          /* the rule fills the proposal; false: it stays as it is */
    struct {
        unsigned char *memory, *data; /* data is NULL for what the session does not have */
        size_t size;                  /* bytes */
    } vector[TRIAL_VECTORS];
};

/* A trial in its first state: slots and scalars as the rule declares, all else zeros. spec, and its
 * ema.on, say what it has; spec->gradient is not looked at. Vectors are `shift` elements of 16 off
 * an alignment of 64, each another number. It must not be moved. */
void trial_open(struct trial *trial, const struct spec *spec, struct layout *layout, size_t shift);
void trial_close(struct trial *trial);

/* Called once the weights are set, by the first trial_step if not before: state that starts as the
 * weights becomes what they are. */
void trial_start(struct trial *trial);

/* Takes a step, its number is one more than the last's, and moves on to its weights: they are
 * TRIAL_PARAM afterwards, those before it TRIAL_NEXT. */
void trial_step(struct trial *trial);

/* What trial_step takes where `proposes`: the proposal of the next step. */
void trial_propose(struct trial *trial);

/* A hyperparameter of the next step, to be set. */
double *trial_hyper(struct trial *trial, const char *name);

/* All numbers of a vector, in the session's dtype, from or to doubles. */
size_t trial_count(const struct trial *trial, size_t which);
void trial_put(struct trial *trial, size_t which, const double *values);
void trial_get(const struct trial *trial, size_t which, double *values);

/* `count` of them, from number `start` on; the caller frees them. */
double *trial_numbers(const struct trial *trial, size_t which, size_t start, size_t count);

/* Fills a vector with numbers between -scale and scale, the same for the same seed whatever the
 * dtype. */
void trial_fill(struct trial *trial, size_t which, uint64_t seed, double scale);

/* The same with standard normal numbers times scale, from the run's seed and this one. */
void trial_fill_normal(struct trial *trial, size_t which, uint64_t seed, double scale);

/* How many bytes around the vectors were written. */
size_t trial_breaches(const struct trial *trial);

#endif
