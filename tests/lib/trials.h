/* Trials of every rule for contract tests, compared bit for bit. */
#ifndef DESCENT_TESTS_TRIALS_H
#define DESCENT_TESTS_TRIALS_H

#include "tests/lib/rules.h"

/* Both precisions of every rule for loop tests; NULL past the end. */
const struct optimizer *trials_rule(int loop);
int trials_loops(void);

/* Adds a group of the tensors that match one pattern. */
void trials_group(struct spec *spec, const char *pattern, struct group group);

/* Opens a trial of a model ("m[2,3] v[5]"), with weights within 0.2: less than what any form clips
 * them to. What the rule proposes may depend on the machine, so it is not asked: fixed numbers
 * stand for it. */
void trials_open(struct trial *trial, const struct spec *spec, const char *model, size_t shift);

/* Draws the inputs of the next step, number by number: those of a shorter model are the first of a
 * longer one's. */
void trials_inputs(struct trial *trial);

/* That, and takes the step. */
void trials_step(struct trial *trial);

/* The numbers of `one` (weights, average, slots, scalars) are, bit for bit, the first of those of
 * `other`; else a failed test. */
void trials_same(const struct trial *one, const struct trial *other, const char *what);

#endif
