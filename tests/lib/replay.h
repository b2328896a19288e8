/* Takes the steps of golden traces as the engine would take them. */
#ifndef DESCENT_TESTS_REPLAY_H
#define DESCENT_TESTS_REPLAY_H

#include "tests/lib/golden.h"
#include "tests/lib/rules.h"

/* A trace with what it sets, for one precision. */
struct replay {
    const struct golden *golden;
    const struct golden_trace *trace;
    struct spec spec;
    size_t slot[SLOTS_MAX]; /* which of the rule's each slot of the trace is */
};

void replay_init(struct replay *replay, const struct golden *golden,
                 const struct golden_trace *trace, const struct optimizer *rule);

/* A trial in its first state but for the weights, which gets its gradients in the wire dtype. */
void replay_open(const struct replay *replay, struct trial *trial, enum dtype wire);

/* Gives a trial in its first state the golden one before step t, rounded to f32, and the base. */
void replay_load(const struct replay *replay, struct trial *trial, size_t t,
                 struct golden_state *before);

/* Makes all of step t ready but the state: trial_step takes it. */
void replay_prepare(const struct replay *replay, struct trial *trial, size_t t,
                    struct measure *measure);

/* The vector of a trial that the trace's slot `k` is, or the weights when k is negative. */
size_t replay_vector(const struct replay *replay, int k);

#endif
